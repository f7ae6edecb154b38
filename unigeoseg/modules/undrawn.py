"""A model whose weights all come from a file is made without drawing random ones first.

Drawing takes a core some ten seconds for each thousand million weights, and makes their memory real.
"""

from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

#: Functions of ``torch.nn.init`` that are left out: nothing of a weight's memory is touched. By name, as
#: ``transformers`` puts its own in their place for a time.
_LEFT = frozenset(("normal_", "uniform_", "kaiming_uniform_"))
#: Methods that draw in functions that go on to look at what they drew (truncated normals); zeros are within
#: any bounds.
_ZEROED: frozenset[Callable[..., Any]] = frozenset((Tensor.normal_, Tensor.uniform_))


class WithoutDraws(TorchFunctionMode):
    """Within it, on this thread, weights that would be drawn are undefined. Buffers and constants are not.

    Whoever makes a model so must fill every parameter, which strict loading does.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Every function of torch passes here."""
        if func in _ZEROED:
            return args[0].zero_()
        if isinstance(func, FunctionType) and func.__name__ in _LEFT:
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))
