"""Progressive task scheduling: which share of the samples each task has, over training progress.

The interactive weight w(p) falls from 1 to ``end_weight`` over progress p in [0, 1]; what interactive gives
up goes to reasoning, and referring keeps its share (UniGeoSeg, arXiv 2511.23332):

    q_int(p) = s_int w(p),   q_ref(p) = s_ref,   q_rea(p) = s_rea + s_int (1 - w(p))

Two forms: :func:`task_shares` is the formula in float64; :class:`ShareCurve` is the same in integers over the
denominator :data:`SCALE`, which the sample plan uses, so that no rounding tie differs between platforms. A
curve is piecewise linear in the plan position. Its prefix sums have a closed form, so a quota at any position
costs the same.
"""

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from unigeoseg.errors import UserError
from unigeoseg.tasks import TASKS

Kind = Literal["linear", "cosine", "step", "constant"]
#: Three shares, in the order of :data:`unigeoseg.tasks.TASKS`.
Shares = tuple[float, float, float]
IntShares = tuple[int, int, int]
Number = float | int | Fraction

#: The denominator of integer shares.
SCALE: Final = 1 << 32
#: Progress at which the schedule "step" falls to its end weight.
STEP_AT: Final = 0.5

_KNOTS = 1024
# A longer piece would overflow int64 when a share difference is multiplied by a position in it.
_LONGEST_PIECE = 1 << 30
_NEVER = 1 << 62


@dataclass(frozen=True)
class Phase:
    """Fixed shares up to progress ``until``, before the schedule proper."""

    until: float
    shares: Shares

    def end(self, length: int) -> int:
        """First position after the phase, in a run of ``length`` positions."""
        return round(Fraction(self.until) * length)


@dataclass(frozen=True)
class Schedule:
    """A task schedule.

    Attributes:
        kind: shape of w(p); "constant" is w = 1 (the paper's average sampling), "step" falls at p = 0.5.
        end_weight: w(1), in [0, 1].
        base: the shares s at the start, any non-negative scale.
        warmup: phases of fixed shares; the schedule's own p runs from 0 at the end of the last one.
    """

    base: tuple[Number, Number, Number]
    kind: Kind = "linear"
    end_weight: float = 0.7
    warmup: tuple[Phase, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.end_weight <= 1:
            raise UserError(
                f"pts.end_weight={self.end_weight} would make a share negative; use a value in [0, 1]"
            )
        check_shares(self.base, "pts.base")
        before = 0.0
        for i, phase in enumerate(self.warmup):
            check_shares(phase.shares, f"pts.warmup[{i}].shares")
            if not before < phase.until <= 1:
                raise UserError(
                    f"pts.warmup[{i}].until={phase.until} must lie in ({before}, 1]: phases come in order"
                )
            before = phase.until


def check_shares(shares: Sequence[Number], where: str) -> None:
    """Raise :class:`UserError` unless the shares are finite, non-negative and not all zero."""
    for task, share in zip(TASKS, shares, strict=True):
        if not math.isfinite(share) or share < 0:
            raise UserError(f"{where}: the share of {task} is {float(share):g}; use a number >= 0")
    if not any(shares):
        raise UserError(f"{where}: all shares are zero; give at least one task a share")


def interactive_weight(p: float, kind: Kind = "linear", end_weight: float = 0.7) -> float:
    """w(p) for progress ``p`` in [0, 1]."""
    fallen = {
        "constant": 0.0,
        "linear": p,
        "cosine": (1.0 - math.cos(math.pi * p)) / 2.0,
        "step": float(p >= STEP_AT),
    }[kind]
    return 1.0 - (1.0 - end_weight) * fallen


def task_shares(p: float, schedule: Schedule) -> NDArray[np.float64]:
    """Shares of the three tasks at overall progress ``p`` in [0, 1]; float64 ``[3]``, sums to 1."""
    start = 0.0
    for phase in schedule.warmup:
        if p < phase.until:
            fixed = np.asarray(phase.shares, np.float64)
            return fixed / fixed.sum()
        start = phase.until
    local = (p - start) / (1.0 - start) if start < 1 else 1.0
    base = np.asarray([float(x) for x in schedule.base], np.float64)
    base /= base.sum()
    weight = interactive_weight(local, schedule.kind, schedule.end_weight)
    return np.array([base[0] * weight, base[1], base[2] + base[0] * (1.0 - weight)])


def integer_shares(weights: Sequence[Number]) -> IntShares:
    """The weights as integers that sum to :data:`SCALE` exactly, by largest remainder (ties: first task)."""
    exact = [Fraction(w) for w in weights]
    scaled = [w * SCALE / sum(exact) for w in exact]
    floors = [int(x) for x in scaled]
    order = sorted(range(3), key=lambda i: (floors[i] - scaled[i], i))
    for i in order[: SCALE - sum(floors)]:
        floors[i] += 1
    return floors[0], floors[1], floors[2]


@dataclass(frozen=True)
class Piece:
    """Shares from ``first`` (at position ``begin``) towards ``last`` (at position ``end``), linearly."""

    begin: int
    end: int
    first: IntShares
    last: IntShares

    def sums(self, count: int) -> tuple[int, int, int]:
        """Exact sums of the first ``count`` positions' integer shares."""
        length = self.end - self.begin
        values = [
            self.first[t] * count
            + (floor_sum(count, length, self.last[t] - self.first[t]) if self.first[t] != self.last[t] else 0)
            for t in (0, 1)
        ]
        return values[0], values[1], SCALE * count - values[0] - values[1]


def floor_sum(count: int, divisor: int, factor: int) -> int:
    """Sum over i in [0, count) of floor(factor * i / divisor), in O(log) steps."""
    total, offset = 0, 0
    while True:
        whole, factor = divmod(factor, divisor)
        total += whole * (count * (count - 1) // 2)
        whole, offset = divmod(offset, divisor)
        total += whole * count
        top = factor * count + offset
        if top < divisor:
            return total
        count, offset = divmod(top, divisor)
        divisor, factor = factor, divisor


class ShareCurve:
    """Integer shares of three tasks at every plan position.

    Position n has the shares ``at(n)``, which sum to :data:`SCALE`; past the last piece the final shares hold
    for ever.
    """

    def __init__(self, pieces: Sequence[Piece]) -> None:
        last = pieces[-1]
        self.pieces = (*pieces, Piece(last.end, _NEVER, last.last, last.last))
        self.length = last.end
        self._begins = [p.begin for p in self.pieces]
        sums = [(0, 0, 0)]
        for piece in pieces:
            sums.append(_add(sums[-1], piece.sums(piece.end - piece.begin)))
        self._sums = sums

    def at(self, position: int) -> IntShares:
        """Integer shares of one position."""
        values = self.window(position, position + 1)[0]
        return int(values[0]), int(values[1]), int(values[2])

    def window(self, begin: int, end: int) -> NDArray[np.int64]:
        """Integer shares of the positions [begin, end); int64 ``[end - begin, 3]``."""
        return np.stack(self.columns(begin, end), axis=1)

    def columns(self, begin: int, end: int) -> list[NDArray[np.int64]]:
        """The columns of :meth:`window`, each an array of its own."""
        out = [np.empty(end - begin, np.int64) for _ in range(3)]
        i, position = self._find(begin), begin
        while position < end:
            piece = self.pieces[i]
            stop = min(end, piece.end)
            place = slice(position - begin, stop - begin)
            for t in (0, 1):
                rise = piece.last[t] - piece.first[t]
                if rise:
                    steps = np.arange(position - piece.begin, stop - piece.begin, dtype=np.int64)
                    steps *= rise
                    steps //= piece.end - piece.begin
                    out[t][place] = steps
                    out[t][place] += piece.first[t]
                else:
                    out[t][place] = piece.first[t]
            position, i = stop, i + 1
        np.subtract(SCALE, out[0], out=out[2])
        out[2] -= out[1]
        return out

    def quota(self, position: int) -> tuple[int, int, int]:
        """Exact sums of the shares of all positions before ``position``, in units of 1 / SCALE."""
        i = self._find(position)
        piece = self.pieces[i]
        return _add(self._sums[i], piece.sums(position - piece.begin))

    def first_reaching(self, task: int, amount: int, low: int) -> int:
        """Smallest prefix length n >= ``low`` with ``quota(n)[task] >= amount`` (2**62: never)."""
        tail = self.pieces[-1]
        missing = amount - self._sums[-1][task]
        if missing > 0:
            share = tail.first[task]
            return min(_NEVER, tail.begin - (-missing // share)) if share else _NEVER
        return bisect.bisect_left(range(self.length), amount, lo=low, key=lambda n: self.quota(n)[task])

    @cached_property
    def peak(self) -> IntShares:
        """The largest integer share that each task ever has."""
        ends = [shares for p in self.pieces for shares in (p.first, p.last)]
        return max(e[0] for e in ends), max(e[1] for e in ends), max(e[2] for e in ends)

    def record(self) -> list[list[int]]:
        """The pieces as plain integers, for fingerprints: begin, end, and six shares each."""
        return [[p.begin, p.end, *p.first, *p.last] for p in self.pieces[:-1]]

    def _find(self, position: int) -> int:
        return bisect.bisect_right(self._begins, position) - 1


def build_curve(
    schedule: Schedule,
    length: int,
    unit_weight: Sequence[Number] = (1, 1, 1),
    phase_weights: Sequence[Sequence[Number]] = (),
) -> ShareCurve:
    """The schedule as integer shares over ``length`` positions.

    Args:
        schedule: the shares, which are over instructions.
        length: number of plan positions; position i has progress i / length.
        unit_weight: positions per instruction of each task: where a position holds several instructions
            (1 / mean number), its shares are over positions, and proportional to share x weight.
        phase_weights: the same of each warm-up phase; none: everywhere as ``unit_weight``.
    """
    pieces: list[Piece] = []
    begin = 0
    weights = phase_weights or [unit_weight] * len(schedule.warmup)
    for phase, weight in zip(schedule.warmup, weights, strict=True):
        end = phase.end(length)
        shares = _weighted(integer_shares(phase.shares), weight)
        pieces += _split(begin, end, shares)
        begin = end
    base = integer_shares(schedule.base)
    end_weight = round(Fraction(schedule.end_weight) * SCALE)
    if schedule.kind == "constant" or end_weight == SCALE:
        pieces += _split(begin, length, _weighted(base, unit_weight))
    elif schedule.kind == "step":
        middle = begin + -(-(length - begin) // 2)
        pieces += _split(begin, middle, _weighted(base, unit_weight))
        pieces += _split(middle, length, _weighted(_moved(base, end_weight), unit_weight))
    else:
        pieces += _sloped(schedule.kind, base, end_weight, begin, length, unit_weight)
    return ShareCurve(pieces)


def _sloped(
    kind: Kind, base: IntShares, end_weight: int, begin: int, length: int, unit_weight: Sequence[Number]
) -> list[Piece]:
    span = length - begin
    exact = kind == "linear" and len({Fraction(w) for w in unit_weight}) == 1
    knots = max(1 if exact else min(_KNOTS, span), -(-span // _LONGEST_PIECE)) if span else 0
    if not knots:
        return []
    at = [span * j // knots for j in range(knots + 1)]
    # The schedule takes positions, not knot numbers, as progress: the knots need not be evenly spaced.
    weights = [SCALE - (SCALE - end_weight) * _fallen(kind, n, span) // SCALE for n in at]
    shares = [_weighted(_moved(base, weight), unit_weight) for weight in weights]
    return [Piece(begin + at[j], begin + at[j + 1], shares[j], shares[j + 1]) for j in range(knots)]


def _split(begin: int, end: int, shares: IntShares) -> list[Piece]:
    return [Piece(begin, end, shares, shares)] if end > begin else []


def _moved(base: IntShares, weight: int) -> IntShares:
    """The base shares with interactive at ``weight`` / SCALE of its own, the rest given to reasoning."""
    interactive = base[0] * weight // SCALE
    return interactive, base[1], SCALE - interactive - base[1]


def _weighted(shares: IntShares, unit_weight: Sequence[Number]) -> IntShares:
    if len({Fraction(w) for w in unit_weight}) == 1:
        return shares
    return integer_shares([Fraction(s) * Fraction(w) for s, w in zip(shares, unit_weight, strict=True)])


def _fallen(kind: Kind, numerator: int, denominator: int) -> int:
    """(1 - w(p)) / (1 - end) in units of 1 / SCALE, for p = numerator / denominator."""
    if kind == "linear":
        return SCALE * numerator // denominator
    # sin^2(pi p / 2) by its Taylor series in 80-bit fixed point: math.cos may differ between platforms.
    bits = 80
    half_pi = 1898976236818169290393996  # floor(pi / 2 * 2**80)
    x = half_pi * numerator // denominator
    square = x * x >> bits
    term, total = x, x
    for k in range(3, 41, 2):
        term = -(term * square >> bits) // (k * (k - 1))
        total += term
    return min(SCALE, (total * total >> bits) * SCALE >> bits)


def _add(a: tuple[int, int, int], b: tuple[int, int, int]) -> tuple[int, int, int]:
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]
