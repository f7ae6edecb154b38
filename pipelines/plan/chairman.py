"""Which task each plan position has: Tijdeman's chairman assignment, in integers.

R. Tijdeman, "The chairman assignment problem", Discrete Mathematics 32 (1980): with m tasks whose shares may
change over time, take at every position, among the tasks whose quota allows one more, the one with the
earliest deadline. Every prefix then holds each task's quota to within 1 - 1 / (2m - 2), which is 3/4 of a
position for three tasks.

A task's x-th position (from 0) is allowed once its quota reaches x + 1/4, and due where it reaches x + 3/4.
Where two tasks' quotas lie less than 1/4 from an integer, the bound leaves one possible state. Such places
are frequent: they make any position reachable without its history, and they cut a long span into lanes that
are assigned side by side.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipelines.plan.lanes import Jobs, one_by_one, side_by_side
from unigeoseg.schedules.pts import SCALE, ShareCurve

Counts = tuple[int, int, int]
_LOOK_BACK: Final = 1 << 10
# Quotas are kept in quarters of a position: one is 4 SCALE, a power of two, so that dividing is shifting.
_ONE: Final = 4 * SCALE
_BITS: Final = _ONE.bit_length() - 1
# Deadlines this far past the end are read off the curve; later ones are searched for.
_MARGIN: Final = 32
# Shorter spans are quicker one by one.
_SIDE_BY_SIDE_FROM: Final = 2048


@dataclass(frozen=True)
class _Quotas:
    """Quotas after each place of a span, less what each task has before it, in units of 1 / (4 SCALE).

    Attributes:
        begin: first position of the span.
        have: one int64 array a task; relative, so that int64 holds the exact values.
    """

    begin: int
    have: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]

    @classmethod
    def of(cls, curve: ShareCurve, begin: int, end: int, counts: Counts) -> "_Quotas":
        quota = curve.quota(begin)
        columns = []
        for t, column in enumerate(curve.columns(begin, end)):
            have = np.cumsum(column)
            have += quota[t] - SCALE * counts[t]
            have <<= 2
            columns.append(have)
        return cls(begin, (columns[0], columns[1], columns[2]))

    def forced(self) -> NDArray[np.int64]:
        """Places after which the state follows from the quotas alone."""
        # Less than 1/4 from an integer: shifted by 1/4, strictly between 0 and 1/2.
        near = [
            (((h + SCALE) & (_ONE - 1)) - 1).view(np.uint64) < np.uint64(2 * SCALE - 1) for h in self.have
        ]
        return np.flatnonzero((near[0] & near[1]) | (near[2] & (near[0] | near[1])))

    def counts_after(self, places: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Positions of each task in the span up to and including the given places of :meth:`forced`."""
        nearest = [(h[places] + 2 * SCALE) >> _BITS for h in self.have]
        away = [np.abs(h[places] - (c << _BITS)) for h, c in zip(self.have, nearest, strict=True)]
        # Two tasks are certain; the third has what is left.
        far = np.argmax(np.stack(away), axis=0)
        for t in range(3):
            others = nearest[(t + 1) % 3] + nearest[(t + 2) % 3]
            nearest[t] = np.where(far == t, places + 1 - others, nearest[t])
        return nearest


def assign(curve: ShareCurve, begin: int, end: int, counts: Counts) -> NDArray[np.int8]:
    """Tasks of the positions [begin, end).

    Args:
        curve: the shares.
        begin: first position.
        end: one past the last.
        counts: positions that each task has before ``begin``.
    """
    length = end - begin
    quotas = _Quotas.of(curve, begin, end + _MARGIN, counts)
    jobs = Jobs.of([_windows(curve, quotas, t, length, counts[t]) for t in range(3)])
    out = np.empty(length, np.int8)
    if length < _SIDE_BY_SIDE_FROM:
        one_by_one(jobs, 0, length, (0, 0, 0), out)
        return out
    forced = quotas.forced()
    forced = forced[forced < length - 1]
    side_by_side(jobs, forced, quotas.counts_after(forced), out)
    return out


def _windows(
    curve: ShareCurve, quotas: _Quotas, task: int, length: int, have_been: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of the task's jobs that are allowed within the span: the place where each is allowed, and is due."""
    have = quotas.have[task]
    allowed = _crossings((have[:length] + 3 * SCALE) >> _BITS)
    due = _crossings((have + SCALE) >> _BITS)[: len(allowed)]
    late = []
    for x in range(len(due), len(allowed)):
        amount = (4 * (have_been + x) + 3) * (SCALE // 4)
        late.append(curve.first_reaching(task, amount, quotas.begin + len(have)) - 1 - quotas.begin)
    return allowed, np.concatenate([due, np.array(late, np.int64)])


def _crossings(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Place of the first number above x, for x = 0, 1, …; numbers rise by at most one after the first."""
    # A task that is ahead of its quota begins below zero: the rise to zero is no job.
    rises = np.flatnonzero((numbers[1:] != numbers[:-1]) & (numbers[1:] > 0)) + 1
    return np.concatenate([np.zeros(max(0, int(numbers[0])), np.int64), rises])


def counts_at(curve: ShareCurve, position: int) -> Counts:
    """Positions that each task has before ``position``, at a cost that does not grow with it.

    It goes back to the last place whose state is known without history and assigns from there.
    """
    start, counts = _last_known(curve, position)
    if start == position:
        return counts
    found = np.bincount(assign(curve, start, position, counts), minlength=3)
    return counts[0] + int(found[0]), counts[1] + int(found[1]), counts[2] + int(found[2])


def _last_known(curve: ShareCurve, position: int) -> tuple[int, Counts]:
    """The last prefix length up to ``position`` whose state is known without history, and that state."""
    begin, back = position, _LOOK_BACK
    while begin > 0:
        begin = max(0, position - back)
        quota = curve.quota(begin)
        whole = quota[0] // SCALE, quota[1] // SCALE, quota[2] // SCALE
        quotas = _Quotas.of(curve, begin, position, whole)
        places = quotas.forced()[-1:]
        if len(places):
            # Relative to the whole quotas, whose sum is up to two short of ``begin``.
            missing = begin - sum(whole)
            return begin + int(places[0]) + 1, _absolute(quotas, places, whole, missing)
        back *= 8
    return 0, (0, 0, 0)


def _absolute(quotas: _Quotas, places: NDArray[np.int64], whole: Counts, missing: int) -> Counts:
    """Counts from the start after the one place, for a span that was taken relative to ``whole``."""
    nearest = [int((h[places[0]] + 2 * SCALE) >> _BITS) for h in quotas.have]
    away = [abs(int(h[places[0]]) - (c << _BITS)) for h, c in zip(quotas.have, nearest, strict=True)]
    far = max(range(3), key=lambda t: (away[t], -t))
    nearest[far] = int(places[0]) + 1 + missing - sum(nearest[t] for t in range(3) if t != far)
    return whole[0] + nearest[0], whole[1] + nearest[1], whole[2] + nearest[2]
