"""Adaptive task scheduling: shares that follow each task's measured learning progress, within bounds.

The paper calls its fixed schedule a limitation (UniGeoSeg, arXiv 2511.23332). Here a segment of training ends
with a choice for the next one: a task whose loss fell faster than the others' gets more, as in curricula by
learning progress (Graves et al., "Automated Curriculum Learning for Neural Networks", arXiv 1704.03003;
Matiisen et al., "Teacher-Student Curriculum Learning", arXiv 1707.00183).
"""

from collections.abc import Sequence

from unigeoseg.errors import UserError
from unigeoseg.schedules.pts import Shares, check_shares

_HALVINGS = 200


def learning_progress(earlier: float | None, later: float | None) -> float | None:
    """Relative fall of a mean loss from one half of a segment to the other; 0 where it rose.

    Args:
        earlier: mean loss of the task's samples in the first half; ``None``: it had none.
        later: the same of the second half.

    Returns:
        A number in [0, 1], or ``None`` where a half had no sample of the task.
    """
    if earlier is None or later is None:
        return None
    return min(1.0, max(0.0, (earlier - later) / earlier)) if earlier > 0 else 0.0


def adapted_shares(
    base: Sequence[float],
    previous: Sequence[float],
    progress: Sequence[float | None],
    low: float = 0.5,
    high: float = 2.0,
    smoothing: float = 0.5,
) -> Shares:
    """Shares of the next segment.

    Each task is wanted in proportion to ``base x progress / mean progress`` (a task that was not measured
    counts as average; if nothing improved, all do), bounded to ``[low, high]`` times its base share, and the
    sum brought to 1 inside these bounds. The answer lies between ``previous`` and that by ``smoothing``.

    Args:
        base: shares that are neither favoured nor held back; any scale.
        previous: shares of the segment that ended; any scale.
        progress: of each task, from :func:`learning_progress`.
        low: least factor on a base share, in [0, 1].
        high: largest factor, >= 1.
        smoothing: weight of ``previous``, in [0, 1).

    Raises:
        UserError: negative or all-zero shares; bounds or smoothing out of their range.
    """
    check_shares(base, "base shares")
    check_shares(previous, "previous shares")
    if not 0 <= low <= 1 <= high:
        raise UserError(f"bounds of adaptive shares are {low} and {high}; use low in [0, 1] and high >= 1")
    if not 0 <= smoothing < 1:
        raise UserError(f"smoothing of adaptive shares is {smoothing}; use a number in [0, 1)")
    whole, before = _normalised(base), _normalised(previous)
    measured = [p for p, share in zip(progress, whole, strict=True) if p is not None and share > 0]
    mean = sum(measured) / len(measured) if measured else 0.0
    factors = [1.0 if p is None or mean == 0 else p / mean for p in progress]
    wanted = _bounded(whole, factors, low, high)
    mixed = _normalised([smoothing * b + (1 - smoothing) * w for b, w in zip(before, wanted, strict=True)])
    return mixed[0], mixed[1], mixed[2]


def _bounded(base: Sequence[float], factors: Sequence[float], low: float, high: float) -> list[float]:
    """``base x clip(level x factor, low, high)`` with the level at which the sum is 1, found by halving."""

    def shares(level: float) -> list[float]:
        return [b * min(high, max(low, level * f)) for b, f in zip(base, factors, strict=True)]

    # Beyond this level every task that made progress is at its upper bound.
    positive = [f for f, b in zip(factors, base, strict=True) if f > 0 and b > 0]
    above = max(1.0, high / min(positive)) if positive else 1.0
    if sum(shares(above)) < 1.0:
        # Those without progress sit at the lower bound although there is room: they share what is left.
        return _filled(base, shares(above), high)
    below = 0.0
    for _ in range(_HALVINGS):
        middle = (below + above) / 2
        if sum(shares(middle)) < 1.0:
            below = middle
        else:
            above = middle
    return shares(above)


def _filled(base: Sequence[float], shares: Sequence[float], high: float) -> list[float]:
    """Gives what is missing to 1 to the tasks below their upper bound, in proportion to their room."""
    room = [high * b - s for b, s in zip(base, shares, strict=True)]
    part = min(1.0, (1.0 - sum(shares)) / sum(room)) if sum(room) > 0 else 0.0  # none is left at high = 1
    return [s + part * r for s, r in zip(shares, room, strict=True)]


def _normalised(shares: Sequence[float]) -> list[float]:
    total = float(sum(shares))
    return [float(s) / total for s in shares]
