"""Units: what a plan position stands for. One sample, or an image with up to k of its samples of one task.

One sample a position takes 4 bytes a sample (8 from 2^32 samples on), in memory or in a file that is mapped;
several take up to 60 while the table is made and 16 afterwards.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from pipelines.plan.permute import mixed

_PART: Final = 1 << 22


class PlanIndex(Protocol):
    """What a plan needs to know of an index; :class:`~pipelines.store.index.StoreIndex` is one."""

    @property
    def store(self) -> str:
        """Name, for messages."""

    @property
    def split(self) -> str:
        """Name of the split, for messages."""

    @property
    def tasks(self) -> NDArray[np.int8]:
        """Task id of each row; below 0: the row is left out."""

    @property
    def images(self) -> NDArray[np.int64]:
        """Number of the image of each row, ascending."""

    @property
    def fingerprint(self) -> str:
        """Changes with the content."""

    def counts(self) -> tuple[int, int, int]:
        """Samples of each task."""


class Positions(Protocol):
    """How many positions samples take; a :class:`UnitTable` tells it."""

    def count(self, task: int) -> int:
        """Units of a task."""

    def per_sample(self, task: int) -> Fraction:
        """Positions for each sample of a task."""


@dataclass(frozen=True)
class UnitTable:
    """All units, ordered by task, then image; in arrays.

    Attributes:
        rows: index rows, unit by unit; unsigned ``[N]``.
        starts: where each unit's rows begin in ``rows``; int64 ``[U + 1]``; ``None`` where a unit is a row.
        first: number of the first unit of each task, and U; four integers.
        runs: where the rows of a task and image begin, and N; ``None`` where a unit is a row.
        parts: of each task, number of the first unit of each group, and of the next task's; empty where
            there are no groups.
    """

    rows: NDArray[Any]
    starts: NDArray[np.int64] | None
    first: tuple[int, int, int, int]
    runs: NDArray[np.int64] | None = None
    parts: tuple[tuple[int, ...], ...] = ()

    @classmethod
    def build(
        cls,
        index: PlanIndex,
        per_image: int,
        file: Path | None = None,
        groups: NDArray[np.int64] | None = None,
    ) -> "UnitTable":
        """Cuts each image's samples of a task into the fewest units of at most ``per_image``, evenly.

        Args:
            index: the samples; rows of an image are adjacent.
            per_image: most samples in a unit.
            file: keep the rows there, mapped, instead of in memory.
            groups: number of the group of each row, from 0 on, the same for all of an image; int64 ``[N]``.
                Within a task, units are ordered by group.
        """
        rows = _by_task(index.tasks, index.counts(), file)
        ends = np.cumsum([0, *index.counts()])
        borders: list[NDArray[np.int64]] = []
        if groups is not None:
            rows[:] = rows[np.lexsort((groups[rows], index.tasks[rows]))]
            numbers = np.arange(int(groups.max(initial=-1)) + 2)
            borders = [
                ends[t] + np.searchsorted(groups[rows[ends[t] : ends[t + 1]]], numbers) for t in range(3)
            ]
        if per_image == 1:
            return cls(rows, None, _four(ends), None, tuple(tuple(b.tolist()) for b in borders))
        # Rows of an image are adjacent, so they stay together, in the index's order.
        starts, runs = _cut(index.tasks[rows], index.images[rows], per_image)
        parts = tuple(tuple(np.searchsorted(starts, b).tolist()) for b in borders)
        return cls(rows, starts, _four(np.searchsorted(starts, ends)), runs, parts)

    def count(self, task: int) -> int:
        """Units of a task."""
        return self.first[task + 1] - self.first[task]

    def samples(self, task: int) -> int:
        """Samples of a task."""
        return self.samples_between(self.first[task], self.first[task + 1])

    def samples_between(self, first: int, end: int) -> int:
        """Samples in the units from ``first`` up to ``end``."""
        return self._start(end) - self._start(first)

    def per_sample(self, task: int) -> Fraction:
        """Units for each sample of a task (1 where it has none)."""
        samples = self.samples(task)
        return Fraction(self.count(task), samples) if samples else Fraction(1)

    def rows_of(
        self, units: NDArray[np.int64], cuts: NDArray[np.uint64] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Index rows of the units, unit by unit, and where each unit's rows begin (one more than units).

        Args:
            units: numbers.
            cuts: a key for each unit: an image's samples of a task are shuffled by it before they are cut
                into units of the same sizes as ever. Of one key, the units of an image hold all its samples.
        """
        if self.starts is None:
            return self.rows[units].astype(np.int64), np.arange(len(units) + 1, dtype=np.int64)
        begin = self.starts[units]
        sizes = self.starts[units + 1] - begin
        splits = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        if cuts is not None:
            return self._shuffled(begin, sizes, cuts), splits
        places = np.arange(splits[-1]) - np.repeat(splits[:-1], sizes) + np.repeat(begin, sizes)
        return self.rows[places].astype(np.int64), splits

    def _shuffled(
        self, begin: NDArray[np.int64], sizes: NDArray[np.int64], cuts: NDArray[np.uint64]
    ) -> NDArray[np.int64]:
        """Rows of units that begin at ``begin`` in their image's run, once the run is shuffled."""
        assert self.runs is not None
        run = np.searchsorted(self.runs, begin, side="right") - 1
        first = self.runs[run]
        lengths = self.runs[run + 1] - first
        owner = np.repeat(np.arange(len(begin)), lengths)
        rank = np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        places = first[owner] + rank
        order = np.lexsort((mixed(places.astype(np.uint64), cuts[owner]), owner))
        low = (begin - first)[owner]
        mine = (rank >= low) & (rank < low + sizes[owner])
        return self.rows[places[order][mine]].astype(np.int64)

    def _start(self, unit: int) -> int:
        return unit if self.starts is None else int(self.starts[unit])


def _four(numbers: NDArray[Any]) -> tuple[int, int, int, int]:
    a, b, c, d = (int(n) for n in numbers)
    return a, b, c, d


def _by_task(tasks: NDArray[np.int8], counts: tuple[int, int, int], file: Path | None) -> NDArray[Any]:
    """Row numbers ordered by task, then row; made part by part, so that memory for it stays small."""
    kind = np.uint32 if len(tasks) < 1 << 32 else np.uint64
    rows: NDArray[Any]
    if file is None or not sum(counts):
        rows = np.empty(sum(counts), kind)
    else:
        rows = np.memmap(file, kind, "w+", shape=(sum(counts),))
    places = [int(n) for n in np.cumsum([0, *counts])[:3]]
    for begin, part in _parts(tasks):
        for t in range(3):
            found = np.flatnonzero(part == t)
            rows[places[t] : places[t] + len(found)] = found + begin
            places[t] += len(found)
    return rows


def _parts(tasks: NDArray[np.int8]) -> Iterator[tuple[int, NDArray[np.int8]]]:
    for begin in range(0, len(tasks), _PART):
        yield begin, tasks[begin : begin + _PART]


def _cut(
    tasks: NDArray[np.int8], images: NDArray[np.int64], per_image: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where units begin, and where runs of a task and image do, for rows that are ordered by both."""
    new_run = np.concatenate([[True], (np.diff(tasks) != 0) | (np.diff(images) != 0)])
    begins = np.flatnonzero(new_run)
    sizes = np.diff(np.append(begins, len(tasks)))
    place = np.arange(len(tasks)) - np.repeat(begins, sizes)
    parts = -(-sizes // per_image)
    unit = place * np.repeat(parts, sizes) // np.repeat(sizes, sizes)
    new_unit = new_run | (np.diff(unit, prepend=0) != 0)
    units, runs = (np.append(new, len(tasks)).astype(np.int64) for new in (np.flatnonzero(new_unit), begins))
    return units, runs
