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
    """

    rows: NDArray[Any]
    starts: NDArray[np.int64] | None
    first: tuple[int, int, int, int]

    @classmethod
    def build(cls, index: PlanIndex, per_image: int, file: Path | None = None) -> "UnitTable":
        """Cuts each image's samples of a task into the fewest units of at most ``per_image``, evenly.

        Args:
            index: the samples; rows of an image are adjacent.
            per_image: most samples in a unit.
            file: keep the rows there, mapped, instead of in memory.
        """
        rows = _by_task(index.tasks, index.counts(), file)
        ends = np.cumsum([0, *index.counts()])
        if per_image == 1:
            return cls(rows, None, _four(ends))
        # Rows of an image are adjacent, so they stay together, in the index's order.
        starts = _cut(index.tasks[rows], index.images[rows], per_image)
        return cls(rows, starts, _four(np.searchsorted(starts, ends)))

    def count(self, task: int) -> int:
        """Units of a task."""
        return self.first[task + 1] - self.first[task]

    def samples(self, task: int) -> int:
        """Samples of a task."""
        return self._start(self.first[task + 1]) - self._start(self.first[task])

    def per_sample(self, task: int) -> Fraction:
        """Units for each sample of a task (1 where it has none)."""
        samples = self.samples(task)
        return Fraction(self.count(task), samples) if samples else Fraction(1)

    def rows_of(self, units: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Index rows of the units, unit by unit, and where each unit's rows begin (one more than units)."""
        if self.starts is None:
            return self.rows[units].astype(np.int64), np.arange(len(units) + 1, dtype=np.int64)
        begin = self.starts[units]
        sizes = self.starts[units + 1] - begin
        splits = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        places = np.arange(splits[-1]) - np.repeat(splits[:-1], sizes) + np.repeat(begin, sizes)
        return self.rows[places].astype(np.int64), splits

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


def _cut(tasks: NDArray[np.int8], images: NDArray[np.int64], per_image: int) -> NDArray[np.int64]:
    """Where units begin, for rows that are ordered by task and image."""
    new_run = np.concatenate([[True], (np.diff(tasks) != 0) | (np.diff(images) != 0)])
    begins = np.flatnonzero(new_run)
    sizes = np.diff(np.append(begins, len(tasks)))
    place = np.arange(len(tasks)) - np.repeat(begins, sizes)
    parts = -(-sizes // per_image)
    unit = place * np.repeat(parts, sizes) // np.repeat(sizes, sizes)
    new_unit = new_run | (np.diff(unit, prepend=0) != 0)
    return np.append(np.flatnonzero(new_unit), len(tasks)).astype(np.int64)
