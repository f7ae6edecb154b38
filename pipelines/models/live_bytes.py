"""The most that a module's forward and backward pass hold at once, counted tensor by tensor.

Works on the meta device, where nothing is held: each new storage counts from its making to its end.
"""

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Counts the storages that operations make while it is active.

    Attributes:
        now: bytes of those that live.
        peak: the most so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def ignore(self, tensors: Iterator[Tensor]) -> None:
        """These were there before."""
        self._known |= {tensor.untyped_storage()._cdata for tensor in tensors}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._remove, key, size)

    def _remove(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def peak_bytes(module: nn.Module, call: Callable[[], Any]) -> int:
    """Peak of a module's forward and backward pass, its weights and their gradients left out.

    Args:
        module: whose weights these are; gradients are added to others, and go as soon as they are whole.
        call: runs the forward pass.
    """
    live = LiveBytes()
    live.ignore(module.parameters())
    live.ignore(module.buffers())
    for parameter in module.parameters():
        parameter.grad = torch.empty_like(parameter) if parameter.requires_grad else None
    hooks = [
        parameter.register_post_accumulate_grad_hook(_forget)
        for parameter in module.parameters()
        if parameter.requires_grad
    ]
    try:
        with live:
            outputs = [t for t in tree_leaves(call()) if isinstance(t, Tensor) and t.requires_grad]
            if outputs:
                torch.autograd.backward(outputs, [torch.empty_like(t) for t in outputs])
    finally:
        for hook in hooks:
            hook.remove()
    return live.peak


def _forget(parameter: Tensor) -> None:
    parameter.grad = None
