"""Which task each plan position has: Tijdeman's chairman assignment, in integers.

R. Tijdeman, "The chairman assignment problem", Discrete Mathematics 32 (1980): with m tasks whose shares may
change over time, take at every position, among the tasks whose quota allows one more, the one with the
earliest deadline. Every prefix then holds each task's quota to within 1 - 1 / (2m - 2), which is 3/4 of a
position for three tasks.

A task's x-th position (from 0) is allowed once its quota reaches x + 1/4, and due where it reaches x + 3/4.
Where two tasks' quotas lie less than 1/4 from an integer, the bound leaves one possible state. Such places
are frequent: they make any position reachable without its history.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from unigeoseg.schedules.pts import SCALE, ShareCurve

Counts = tuple[int, int, int]
_LOOK_BACK: Final = 1 << 10
# Quotas are kept in quarters of a position: one is 4 SCALE, a power of two, so that dividing is shifting.
_ONE: Final = 4 * SCALE
_BITS: Final = _ONE.bit_length() - 1
# Deadlines this far past the end are read off the curve; later ones are searched for.
_MARGIN: Final = 32
_NEVER: Final = (1 << 62) + 1
#: The jobs of a task in a span, as places counted from its begin: where each is allowed, and where it is due.
_Windows = tuple[NDArray[np.int64], NDArray[np.int64]]


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
    return _earliest_first([_windows(curve, quotas, t, length, counts[t]) for t in range(3)], length)


def _earliest_first(windows: list[_Windows], length: int) -> NDArray[np.int8]:
    """At each place the allowed job that is due first; ties go to the first task.

    A plain loop: 0.2 s for a million positions, of which a run needs 65,536 at a time.
    """
    # A place takes one job, and at most two more are allowed and not yet due: that many are looked at.
    (allowed_0, due_0), (allowed_1, due_1), (allowed_2, due_2) = (
        [[*part[: length + 2].tolist(), _NEVER] for part in pair] for pair in windows
    )
    x0 = x1 = x2 = 0
    chosen_at = bytearray(length)
    for place in range(length):
        best, chosen = _NEVER + 1, 3
        if allowed_0[x0] <= place:
            best, chosen = due_0[x0], 0
        if allowed_1[x1] <= place and due_1[x1] < best:
            best, chosen = due_1[x1], 1
        if allowed_2[x2] <= place and due_2[x2] < best:
            chosen = 2
        chosen_at[place] = chosen
        if chosen == 0:
            x0 += 1
        elif chosen == 1:
            x1 += 1
        else:
            x2 += 1
    return np.frombuffer(chosen_at, np.int8)


def _windows(curve: ShareCurve, quotas: _Quotas, task: int, length: int, have_been: int) -> _Windows:
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
