"""Sampling by table rows against one grid_sample per level, and windows as one gather."""

import pytest
import torch
from timm.models.swin_transformer import window_partition, window_reverse
from transformers.models.mask2former.modeling_mask2former import multi_scale_deformable_attention

from unigeoseg.modules.deformable import deformable_sampling
from unigeoseg.modules.swin import window_places

SHAPES = [(3, 5), (6, 7), (9, 4)]


def arguments(spread, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    count = sum(h * w for h, w in SHAPES)

    def made(*shape):
        return torch.randn(*shape, generator=generator).to(dtype)

    value = made(2, count, 2, 8).requires_grad_()
    reference = torch.rand(11, 2, generator=generator)
    offsets = (made(2, 11, 2, 3, 4, 2) * spread).requires_grad_()
    weights = made(2, 11, 2, 3, 4).requires_grad_()
    return value, reference, offsets, weights


@pytest.mark.parametrize("spread", [0.3, 4.0, 100.0])  # inside, across the rims, far outside
def test_values_and_gradients_are_those_of_grid_sample(spread):
    value, reference, offsets, weights = arguments(spread, torch.float32)
    ours = deformable_sampling(value, SHAPES, reference, offsets, weights)
    exact = [t.detach().double().requires_grad_() for t in (value, offsets, weights)]
    scale = torch.tensor([[w, h] for h, w in SHAPES], dtype=torch.float64)[None, None, None, :, None]
    places = reference.double()[None, :, None, None, None] + exact[1] / scale
    expected = multi_scale_deformable_attention(exact[0], SHAPES, places, exact[2])
    torch.testing.assert_close(ours.double(), expected, rtol=1e-4, atol=1e-4)
    towards = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1))
    found = torch.autograd.grad(ours, (value, offsets, weights), towards)
    wanted = torch.autograd.grad(expected, exact, towards.double())
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-3, atol=2e-4)


def test_a_bfloat16_map_is_read_at_float32_positions():
    value, reference, offsets, weights = arguments(1.0, torch.bfloat16)
    read = deformable_sampling(value, SHAPES, reference, offsets, weights)
    assert read.dtype == torch.bfloat16
    exact = deformable_sampling(value.float(), SHAPES, reference, offsets.float(), weights.float())
    torch.testing.assert_close(read, exact.bfloat16())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_values_it_keeps_what_the_kernels_keep(dtype):
    """The planner counts memory on the meta device: nothing beside the inputs, and shapes as everywhere."""
    given = arguments(1.0, dtype)
    value, reference, offsets, weights = (t.detach().to("meta").requires_grad_() for t in given)
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        read = deformable_sampling(value, SHAPES, reference, offsets, weights)
    assert read.shape == deformable_sampling(given[0], SHAPES, *given[1:]).shape and read.dtype == dtype
    assert {id(tensor) for tensor in kept.values()} == {id(value), id(offsets), id(weights)}
    found = torch.autograd.grad(read, (value, offsets, weights), torch.empty_like(read))
    for gradient, tensor in zip(found, (value, offsets, weights), strict=True):
        assert gradient.shape == tensor.shape and gradient.dtype == tensor.dtype


@pytest.mark.parametrize(
    ("side", "window", "shift"), [(8, 4, 0), (8, 4, 2), (7, 4, 2), (5, 12, 6), (16, 12, 6)]
)
def test_one_gather_is_padding_shift_and_partition(side, window, shift):
    x = torch.randn(1, side, side, 3)
    places, back = window_places(side, window, shift)
    rows = torch.nn.functional.pad(x.flatten(1, 2), (0, 0, 0, 1))
    padded = torch.nn.functional.pad(x, (0, 0, 0, -side % window, 0, -side % window))
    windows = window_partition(padded.roll((-shift, -shift), (1, 2)), (window, window))
    gathered = rows.index_select(1, places)
    assert torch.equal(gathered.view_as(windows), windows)
    whole = window_reverse(windows, (window, window), *padded.shape[1:3]).roll((shift, shift), (1, 2))
    assert torch.equal(gathered.index_select(1, back).view_as(x), whole[:, :side, :side])
