"""The pieces of weights and optimizer state that one rank holds, whatever the ZeRO stage, by parameter name.

DeepSpeed keeps float32 masters and Adam moments in flat tensors, cut differently in every stage and world
size: stages 1 and 2 cut the concatenation of all parameters into one part a rank, stage 3 cuts each
parameter, stage 0 keeps everything on every rank. A piece says which elements of which parameter a part of
such a flat tensor is, and so a checkpoint made of pieces fits every stage and world size.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

#: What is kept of each element: the float32 weight, and AdamW's first and second moment.
WEIGHT = "weight"
MOMENTS = ("exp_avg", "exp_avg_sq")
KINDS = (WEIGHT, *MOMENTS)


@dataclass(frozen=True)
class Piece:
    """Consecutive elements of one parameter.

    Attributes:
        name: of the parameter in the model.
        shape: of the whole parameter.
        start: first element, counted in the flattened parameter.
        values: by kind, float32 views ``[count]`` of the optimizer's own memory.
        counter: AdamW's count of updates, a scalar tensor of its state; ``None`` before the first one.
    """

    name: str
    shape: tuple[int, ...]
    start: int
    values: dict[str, Tensor]
    counter: Tensor | None

    @property
    def count(self) -> int:
        """Elements."""
        return self.values[WEIGHT].numel()

    @property
    def step(self) -> float:
        """Updates so far."""
        return 0.0 if self.counter is None else float(self.counter)


@dataclass(frozen=True)
class _Span:
    """Where a piece lies: ``count`` elements at ``offset`` of a tensor that the optimizer updates."""

    name: str
    shape: tuple[int, ...]
    start: int
    count: int
    flat: Tensor
    offset: int


def own_pieces(engine: Any, model: nn.Module, stage: int, rank: int, world: int) -> list[Piece]:
    """What this rank has to write, so that all ranks together write every element once.

    Args:
        engine: DeepSpeed's.
        model: names the parameters.
        stage: of ZeRO.
        rank: of this process.
        world: number of ranks.
    """
    share = (rank, world) if stage == 0 else (0, 1)
    spans = _spans(engine, model, stage, rank, share)
    return [_piece(span, engine) for span in spans]


def held_pieces(engine: Any, model: nn.Module, stage: int, rank: int) -> list[Piece]:
    """All that this rank holds, and so has to be given on loading; the optimizer's state exists then."""
    spans = _spans(engine, model, stage, rank, (0, 1))
    for span in spans:
        _ensure_state(span.flat, engine)
    return [_piece(span, engine) for span in spans]


def set_steps(pieces: Iterable[Piece], steps: dict[str, float]) -> None:
    """Sets AdamW's counts; where parameters share one (in a flat tensor), the largest of theirs."""
    found: dict[int, tuple[Tensor, float]] = {}
    for piece in pieces:
        assert piece.counter is not None
        before = found.get(id(piece.counter), (piece.counter, 0.0))[1]
        found[id(piece.counter)] = (piece.counter, max(before, steps[piece.name]))
    for counter, step in found.values():
        counter.fill_(step)


def publish_weights(engine: Any, stage: int) -> None:
    """Copies the masters into the weights that the model computes with; a collective call."""
    optimizer = engine.optimizer
    if stage in (1, 2):
        optimizer.update_lp_params()
    elif stage == 3:
        optimizer.checkpoint_event_prologue()
        for group in range(len(optimizer.fp32_partitioned_groups_flat)):
            optimizer._reassign_or_swap_out_partitioned_parameters(group)
        optimizer.checkpoint_event_epilogue()


def _torch_optimizer(engine: Any) -> torch.optim.Optimizer:
    inner: torch.optim.Optimizer = getattr(engine.optimizer, "optimizer", engine.optimizer)
    return inner


def _ensure_state(flat: Tensor, engine: Any) -> None:
    """AdamW makes its state in its first update; a fresh one is made here in the same form."""
    state = _torch_optimizer(engine).state[flat]
    if not state:
        state["step"] = torch.tensor(0.0, dtype=torch.float32)
        for kind in MOMENTS:
            state[kind] = torch.zeros_like(flat)


def _piece(span: _Span, engine: Any) -> Piece:
    state = _torch_optimizer(engine).state.get(span.flat) or {}
    values = {WEIGHT: _cut(span.flat, span)}
    for kind in MOMENTS:
        values[kind] = _cut(state[kind], span) if state else torch.zeros_like(values[WEIGHT])
    return Piece(span.name, span.shape, span.start, values, state.get("step"))


def _cut(tensor: Tensor, span: _Span) -> Tensor:
    return tensor.detach().view(-1).narrow(0, span.offset, span.count)


def _spans(engine: Any, model: nn.Module, stage: int, rank: int, share: tuple[int, int]) -> list[_Span]:
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


def _whole(name: str, parameter: nn.Parameter, share: tuple[int, int]) -> _Span | None:
    part, parts = share
    start, end = (parameter.numel() * i // parts for i in (part, part + 1))
    if start == end:
        return None
    return _Span(name, tuple(parameter.shape), start, end - start, parameter, start)


def _of_flat_group(name: str, parameter: Any, optimizer: Any) -> _Span | None:
    link = parameter._hp_mapping
    if link is None:  # another rank's
        return None
    # BF16_Optimizer and the optimizer of stages 1 and 2 call the same thing by two names.
    groups = (
        getattr(optimizer, "single_partition_of_fp32_groups", None) or optimizer.fp32_groups_flat_partition
    )
    at, place = link.lp_fragment_address, link.hp_fragment_address
    flat = groups[link.param_group_index]
    return _Span(name, tuple(parameter.shape), at.start, at.numel, flat, place.start)


def _of_partition(name: str, parameter: Any, optimizer: Any, rank: int) -> _Span | None:
    group, offset, size = optimizer.grad_position[optimizer.get_param_id(parameter)]
    start = rank * size
    count = min(size, parameter.ds_numel - start)  # the last partitions are padded
    if count <= 0:
        return None
    flat = optimizer.fp32_partitioned_groups_flat[group]
    return _Span(name, tuple(parameter.ds_shape), start, count, flat, offset)
