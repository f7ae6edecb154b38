"""bfloat16 products on a CPU that has no instructions for them.

PyTorch's own fallback there is a scalar loop, which in the backward pass takes a hundred times as long as the
float32 product. Here operands are widened, multiplied in float32 and the result is rounded: what the
instructions do too (bfloat16 in, float32 sums).
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

_ATEN = torch.ops.aten
_PRODUCTS = frozenset(
    {
        _ATEN.mm.default,
        _ATEN.addmm.default,
        _ATEN.bmm.default,
        _ATEN.baddbmm.default,
        _ATEN.convolution.default,
        _ATEN.convolution_backward.default,
        _ATEN._scaled_dot_product_flash_attention_for_cpu.default,
        _ATEN._scaled_dot_product_flash_attention_for_cpu_backward.default,
    }
)


class WidenedProducts(TorchDispatchMode):
    """Within it, products of bfloat16 tensors are taken in float32, forwards and backwards."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs one operator."""
        kwargs = kwargs or {}
        if func not in _PRODUCTS or not any(_narrow(a) for a in (*args, *kwargs.values())):
            return func(*args, **kwargs)
        result = func(*tree_map_only(Tensor, _widen, args), **tree_map_only(Tensor, _widen, kwargs))
        if func is _ATEN._scaled_dot_product_flash_attention_for_cpu.default:
            return result[0].bfloat16(), *result[1:]  # the logarithms of the sums stay float32
        return tree_map_only(Tensor, Tensor.bfloat16, result)


def bfloat16_products(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[Any]:
    """:class:`WidenedProducts` for bfloat16 on a CPU without its instructions, else nothing.

    It looks at every operator, which a float32 model should not pay for.
    """
    lacking = device.type == "cpu" and not torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return WidenedProducts() if lacking and dtype is torch.bfloat16 else nullcontext()


def _narrow(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype is torch.bfloat16


def _widen(value: Tensor) -> Tensor:
    return value.float() if _narrow(value) else value
