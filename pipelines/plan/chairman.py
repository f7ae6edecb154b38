"""Which task each plan position has: Tijdeman's chairman assignment, in integers.

R. Tijdeman, "The chairman assignment problem", Discrete Mathematics 32 (1980): with m tasks whose shares may
change over time, take at every position, among the tasks whose quota allows one more, the one with the
earliest deadline. Every prefix then holds each task's quota to within 1 - 1 / (2m - 2), which is 3/4 of a
position for three tasks.

A task's x-th position (from 0) is allowed once its quota reaches x + 1/4, and due where it reaches x + 3/4.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from unigeoseg.pts import SCALE, ShareCurve

Counts = tuple[int, int, int]
_NEVER: Final = 1 << 62
_LOOK_BACK: Final = 1 << 10


def assign(curve: ShareCurve, begin: int, end: int, counts: Counts) -> NDArray[np.int8]:
    """Tasks of the positions [begin, end).

    Args:
        curve: the shares.
        begin: first position.
        end: one past the last.
        counts: positions that each task has before ``begin``.
    """
    length = end - begin
    quota = curve.quota(begin)
    sums = np.cumsum(curve.window(begin, end), axis=0)
    allowed: list[list[int]] = []
    due: list[list[int]] = []
    for t in range(3):
        # Relative to what is assigned already: small numbers, so that int64 holds the exact values.
        have = 4 * (sums[:, t] + (quota[t] - SCALE * counts[t]))
        released = max(0, (int(have[-1]) - SCALE) // (4 * SCALE) + 1)
        jobs = 4 * SCALE * np.arange(released, dtype=np.int64)
        allowed.append([*np.searchsorted(have, jobs + SCALE).tolist(), _NEVER])
        deadlines = np.searchsorted(have, jobs + 3 * SCALE).tolist()
        for x in range(released - 1, -1, -1):
            if deadlines[x] < length:
                break
            amount = (4 * (counts[t] + x) + 3) * (SCALE // 4)
            deadlines[x] = curve.first_reaching(t, amount, end) - 1 - begin
        due.append([*deadlines, _NEVER])
    return _earliest_deadline(length, allowed, due)


def _earliest_deadline(length: int, allowed: list[list[int]], due: list[list[int]]) -> NDArray[np.int8]:
    """Places 0 .. length - 1 by earliest deadline among the allowed; ties go to the first task."""
    (allowed_0, allowed_1, allowed_2), (due_0, due_1, due_2) = allowed, due
    x0 = x1 = x2 = 0
    out = bytearray(length)
    for place in range(length):
        best, chosen = _NEVER, 3
        if allowed_0[x0] <= place:
            best, chosen = due_0[x0], 0
        if allowed_1[x1] <= place and due_1[x1] < best:
            best, chosen = due_1[x1], 1
        if allowed_2[x2] <= place and due_2[x2] < best:
            chosen = 2
        out[place] = chosen
        if chosen == 0:
            x0 += 1
        elif chosen == 1:
            x1 += 1
        else:
            x2 += 1
    return np.frombuffer(out, np.int8)


def counts_at(curve: ShareCurve, position: int) -> Counts:
    """Positions that each task has before ``position``, at a cost that does not grow with it.

    Where two tasks' quotas lie less than 1/4 from an integer, the bound of 3/4 leaves one possible state. So
    it is enough to go back to the last such place and assign from there.
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
        known = _last_forced(curve, begin, position)
        if known is not None:
            return known
        back *= 8
    return 0, (0, 0, 0)


def _last_forced(curve: ShareCurve, begin: int, end: int) -> tuple[int, Counts] | None:
    """The last prefix length in (begin, end] whose state follows from the quotas alone, and that state."""
    quota = curve.quota(begin)
    whole = [q // SCALE for q in quota]
    sums = np.cumsum(curve.window(begin, end), axis=0)
    sums += np.array([q - w * SCALE for q, w in zip(quota, whole, strict=True)], np.int64)
    part = sums % SCALE
    near = (part < SCALE // 4) | (part > 3 * SCALE // 4)
    places = np.flatnonzero(near.sum(axis=1) >= 2)
    if not len(places):
        return None
    i = int(places[-1])
    length = begin + i + 1
    counts = [whole[t] + int((sums[i, t] + SCALE // 2) // SCALE) for t in range(3)]
    # Two tasks are certain; the third has what is left.
    far = next((t for t in range(3) if not near[i, t]), 2)
    counts[far] = length - sum(counts[t] for t in range(3) if t != far)
    return length, (counts[0], counts[1], counts[2])
