"""Weights that several names share, for file formats that share nothing."""

from collections.abc import Mapping

from torch import Tensor


def apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, each in a storage of its own as far as they start at the same place; contiguous."""
    seen: set[int] = set()
    found = {}
    for name, tensor in tensors.items():
        shared = tensor.numel() > 0 and tensor.data_ptr() in seen
        found[name] = tensor.clone() if shared else tensor.contiguous()
        seen.add(tensor.data_ptr())
    return found
