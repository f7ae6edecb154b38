"""Which elements of which parameter lie where in the flat tensors that the optimizer updates."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


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
            span = _whole(name, parameter, share)
        elif stage == 3:
            span = _of_partition(name, parameter, engine.optimizer, rank)
        else:
            span = _of_flat_group(name, parameter, engine.optimizer)
        if span is not None:
            found.append(span)
    return found


def _whole(name: str, parameter: nn.Parameter, share: tuple[int, int]) -> Span | None:
    part, parts = share
    start, end = (parameter.numel() * i // parts for i in (part, part + 1))
    if start == end:
        return None
    return Span(name, tuple(parameter.shape), start, end - start, parameter, start)


def _of_flat_group(name: str, parameter: Any, optimizer: Any) -> Span | None:
    link = parameter._hp_mapping
    if link is None:  # another rank's
        return None
    # BF16_Optimizer and the optimizer of stages 1 and 2 call the same thing by two names.
    groups = (
        getattr(optimizer, "single_partition_of_fp32_groups", None) or optimizer.fp32_groups_flat_partition
    )
    at, place = link.lp_fragment_address, link.hp_fragment_address
    flat = groups[link.param_group_index]
    return Span(name, tuple(parameter.shape), at.start, at.numel, flat, place.start)


def _of_partition(name: str, parameter: Any, optimizer: Any, rank: int) -> Span | None:
    group, offset, size = optimizer.grad_position[optimizer.get_param_id(parameter)]
    start = rank * size
    count = min(size, parameter.ds_numel - start)  # the last partitions are padded
    if count <= 0:
        return None
    flat = optimizer.fp32_partitioned_groups_flat[group]
    return Span(name, tuple(parameter.ds_shape), start, count, flat, offset)
