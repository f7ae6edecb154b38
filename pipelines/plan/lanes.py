"""Earliest deadline first, for unit jobs of three tasks: one by one, or in many lanes side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

_NEVER: Final = (1 << 62) + 1
_HALF: Final = 31
_LOW: Final = (1 << _HALF) - 1
_FAR: Final = 1 << 30
# About this many places a lane: shorter lanes make the arrays of a step longer, and steps fewer.
_LANE: Final = 48
# Lanes that are longer leave too few companions to pay for a step over arrays.
_LONG: Final = 1024


@dataclass(frozen=True)
class Jobs:
    """The jobs of three tasks in a span, in order; places count from the span's begin.

    Attributes:
        allowed: place from which each job of a task may be done; int64, one array a task, a guard last.
        due: place up to which it must be done; likewise.
    """

    allowed: tuple[NDArray[np.int64], ...]
    due: tuple[NDArray[np.int64], ...]

    @classmethod
    def of(cls, windows: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]]) -> "Jobs":
        """From the (allowed, due) places of each task."""
        return cls(tuple(_guarded(w[0]) for w in windows), tuple(_guarded(w[1]) for w in windows))


def _guarded(places: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.append(places, _NEVER)


def one_by_one(jobs: Jobs, begin: int, end: int, done: Sequence[int], out: NDArray[np.int8]) -> None:
    """Fills ``out[begin:end]``; ``done`` jobs of each task come before. Ties go to the first task."""
    # A place takes one job, and at most two more are allowed and not yet due: that many are looked at.
    (allowed_0, allowed_1, allowed_2), (due_0, due_1, due_2) = (
        [part[done[t] : done[t] + end - begin + 2].tolist() for t, part in enumerate(parts)]
        for parts in (jobs.allowed, jobs.due)
    )
    x0 = x1 = x2 = 0
    chosen_at = bytearray(end - begin)
    for place in range(begin, end):
        best, chosen = _NEVER + 1, 3
        if allowed_0[x0] <= place:
            best, chosen = due_0[x0], 0
        if allowed_1[x1] <= place and due_1[x1] < best:
            best, chosen = due_1[x1], 1
        if allowed_2[x2] <= place and due_2[x2] < best:
            chosen = 2
        chosen_at[place - begin] = chosen
        if chosen == 0:
            x0 += 1
        elif chosen == 1:
            x1 += 1
        else:
            x2 += 1
    out[begin:end] = np.frombuffer(chosen_at, np.int8)


def side_by_side(
    jobs: Jobs, known: NDArray[np.int64], done: Sequence[NDArray[np.int64]], out: NDArray[np.int8]
) -> None:
    """Fills all of ``out``, starting anew after every known place.

    Args:
        jobs: of the whole span.
        known: places after which the state is known, ascending, all before the last place.
        done: jobs of each task up to and including these places.
        out: one task id a place; int8.
    """
    chosen = np.unique(np.searchsorted(known, np.arange(_LANE, len(out), _LANE)))
    chosen = chosen[chosen < len(known)]
    starts = np.concatenate([[0], known[chosen] + 1])
    lengths = np.diff(np.append(starts, len(out)))
    states = np.stack([np.concatenate([[0], d[chosen]]) for d in done])
    long = lengths > _LONG
    for lane in np.flatnonzero(long).tolist():
        begin = int(starts[lane])
        one_by_one(jobs, begin, begin + int(lengths[lane]), states[:, lane].tolist(), out)
    # The longest first: the lanes that are still going are then always the first ones.
    order = np.flatnonzero(~long)
    order = order[np.argsort(-lengths[order], kind="stable")]
    _step_lanes(jobs, starts[order], lengths[order], states[:, order], out)


def _step_lanes(
    jobs: Jobs,
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    states: NDArray[np.int64],
    out: NDArray[np.int8],
) -> None:
    if not len(starts):
        return
    windows = _packed(jobs)
    going = np.searchsorted(-lengths, -np.arange(int(lengths[0])), side="left")
    places, jobs_done = starts.copy(), np.ascontiguousarray(states)
    passed = (starts + 1) << _HALF  # a window below it has begun
    due = np.empty_like(jobs_done)
    for active in going.tolist():
        p = places[:active]
        for t in range(3):
            found = due[t, :active]
            windows[t].take(jobs_done[t, :active], out=found, mode="clip")
            waits = found >= passed[:active]
            found &= _LOW
            np.putmask(found, waits, _LOW)
        first, second, third = due[:, :active]
        take_2 = third < np.minimum(first, second)
        take_1 = second < first
        take_1 &= ~take_2
        out[p] = take_2.view(np.int8) * np.int8(2) + take_1.view(np.int8)
        jobs_done[1, :active] += take_1
        jobs_done[2, :active] += take_2
        take_1 |= take_2
        jobs_done[0, :active] += ~take_1
        p += 1
        passed[:active] += 1 << _HALF


def _packed(jobs: Jobs) -> list[NDArray[np.int64]]:
    """Both ends of each window in one number, so that they come from memory together."""
    dues = [np.minimum(due, _NEVER) for due in jobs.due]
    # Few deadlines lie far past the span; their order alone matters.
    far = np.unique(np.concatenate([due[due >= _FAR] for due in dues]))
    packed = []
    for allowed, due in zip(jobs.allowed, dues, strict=True):
        due[due >= _FAR] = _FAR + np.searchsorted(far, due[due >= _FAR])
        packed.append(np.minimum(allowed, _LOW) << _HALF | due)
    return packed
