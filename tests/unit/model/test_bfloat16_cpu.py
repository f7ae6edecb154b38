"""Products in float32 instead of bfloat16's scalar loop: the same numbers, forwards and backwards."""

import pytest
import torch
from torch import nn

from unigeoseg.modules.bfloat16_cpu import WidenedProducts, bfloat16_products


def attention(x):
    heads = x.unflatten(-1, (2, 8)).transpose(1, 2)
    return nn.functional.scaled_dot_product_attention(heads, heads, heads, is_causal=True)


CASES = {
    "linear": (nn.Linear(16, 8), (4, 16)),
    "without bias": (nn.Linear(16, 8, bias=False), (2, 4, 16)),
    "convolution": (nn.Conv2d(3, 8, 3, stride=2, padding=1), (2, 3, 9, 9)),
    "batched": (lambda x: x @ x.transpose(1, 2), (3, 5, 16)),
    "attention": (attention, (2, 5, 16)),
}


@pytest.mark.parametrize("case", CASES)
def test_they_are_the_rounded_float32_products(case):
    torch.manual_seed(0)
    function, shape = CASES[case]
    module = function.bfloat16() if isinstance(function, nn.Module) else None
    x = torch.randn(shape).bfloat16().requires_grad_()
    parameters = [x, *(module.parameters() if module else ())]
    with WidenedProducts():
        y = function(x)
        towards = torch.randn(y.shape).bfloat16()
        found = torch.autograd.grad(y, parameters, towards)
    assert y.dtype == torch.bfloat16
    wide_x = x.detach().float().requires_grad_()
    wide = module.float() if module else function
    expected = wide(wide_x)
    torch.testing.assert_close(y.float(), expected, rtol=1e-2, atol=1e-2)
    wanted = torch.autograd.grad(
        expected, [wide_x, *(module.parameters() if module else ())], towards.float()
    )
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == torch.bfloat16
        torch.testing.assert_close(one.float(), other, rtol=2e-2, atol=5e-2)


def test_float32_is_left_alone():
    x, layer = torch.randn(4, 16), nn.Linear(16, 8)
    expected = layer(x)
    with WidenedProducts():
        assert torch.equal(layer(x), expected)


def test_only_a_cpu_without_the_instructions_needs_it():
    native = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    cpu = torch.device("cpu")
    assert isinstance(bfloat16_products(cpu, torch.bfloat16), WidenedProducts) != native
    assert not isinstance(bfloat16_products(cpu, torch.float32), WidenedProducts)
    assert not isinstance(bfloat16_products(torch.device("meta"), torch.bfloat16), WidenedProducts)
