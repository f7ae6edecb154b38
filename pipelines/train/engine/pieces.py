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

from pipelines.train.engine.deepspeed_private import inner_optimizer
from pipelines.train.engine.muon import MuonAdamW
from pipelines.train.engine.spans import Span, spans

#: What is kept of each element: the float32 weight, and AdamW's first and second moment (Muon has no second).
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
    return [_piece(span, engine) for span in spans(engine, model, stage, rank, share)]


def held_pieces(engine: Any, model: nn.Module, stage: int, rank: int) -> list[Piece]:
    """All that this rank holds, and so has to be given on loading; the optimizer's state exists then."""
    held = spans(engine, model, stage, rank, (0, 1))
    for span in held:
        _ensure_state(span.flat, engine)
    return [_piece(span, engine) for span in held]


def set_steps(pieces: Iterable[Piece], steps: dict[str, float]) -> None:
    """Sets AdamW's counts; where parameters share one (in a flat tensor), the largest of theirs."""
    found: dict[int, tuple[Tensor, float]] = {}
    for piece in pieces:
        assert piece.counter is not None
        before = found.get(id(piece.counter), (piece.counter, 0.0))[1]
        found[id(piece.counter)] = (piece.counter, max(before, steps[piece.name]))
    for counter, step in found.values():
        counter.fill_(step)


def _moments(flat: Tensor, engine: Any) -> tuple[str, ...]:
    optimizer = inner_optimizer(engine)
    return optimizer.moments(flat) if isinstance(optimizer, MuonAdamW) else MOMENTS


def _ensure_state(flat: Tensor, engine: Any) -> None:
    """The optimizer makes its state in its first update; a fresh one is made here in the same form."""
    state = inner_optimizer(engine).state[flat]
    if not state:
        state["step"] = torch.tensor(0.0, dtype=torch.float32)
        for kind in _moments(flat, engine):
            state[kind] = torch.zeros_like(flat)


def _piece(span: Span, engine: Any) -> Piece:
    state = inner_optimizer(engine).state.get(span.flat) or {}
    values = {WEIGHT: _cut(span.flat, span)}
    for kind in _moments(span.flat, engine):
        values[kind] = _cut(state[kind], span) if state else torch.zeros_like(values[WEIGHT])
    return Piece(span.name, span.shape, span.start, values, state.get("step"))


def _cut(tensor: Tensor, span: Span) -> Tensor:
    return tensor.detach().view(-1).narrow(0, span.offset, span.count)
