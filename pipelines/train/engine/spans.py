"""Which elements of which parameter lie where in the flat tensors that the optimizer updates."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from pipelines.train.engine.deepspeed_private import Held, held_in_group, held_in_partition, whole_shape


@dataclass(frozen=True)
class Span:
    """Consecutive elements of one parameter: ``count`` at ``offset`` of a tensor that the optimizer updates.

    Attributes:
        name: of the parameter in the model.
        shape: of the whole parameter.
        start: first element, counted in the flattened parameter.
        count: elements.
        flat: the optimizer's tensor.
        offset: in the flattened ``flat``.
    """

    name: str
    shape: tuple[int, ...]
    start: int
    count: int
    flat: Tensor
    offset: int

    @staticmethod
    def of_whole(parameter: Tensor) -> "Span":
        """A parameter that the optimizer updates itself."""
        return Span("", tuple(parameter.shape), 0, parameter.numel(), parameter, 0)

    @property
    def numel(self) -> int:
        """Elements of the whole parameter."""
        count = 1
        for side in self.shape:
            count *= side
        return count

    @property
    def matrix(self) -> tuple[int, int]:
        """The parameter's shape as a matrix: all but the first side flattened."""
        return self.shape[0], self.numel // self.shape[0]


def spans(engine: Any, model: nn.Module, stage: int, rank: int, share: tuple[int, int]) -> list[Span]:
    """All of a rank's; of stage 0, where every rank holds everything, the ``share`` (part, parts) of it."""
    found = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if stage == 0:
            held = _share_of(parameter, share)
        elif stage == 3:
            held = held_in_partition(parameter, engine.optimizer, rank)
        else:
            held = held_in_group(parameter, engine.optimizer)
        if held is not None:
            place = held.start, held.count, held.flat, held.offset
            found.append(Span(name, whole_shape(parameter), *place))
    return found


def _share_of(parameter: nn.Parameter, share: tuple[int, int]) -> Held | None:
    part, parts = share
    start, end = (parameter.numel() * i // parts for i in (part, part + 1))
    return None if start == end else Held(start, end - start, parameter, start)
