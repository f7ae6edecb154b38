"""Units: what a plan position stands for. One sample, or an image with up to k of its samples of one task."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from pipelines.store.index import StoreIndex


@dataclass(frozen=True)
class UnitTable:
    """All units, ordered by task, then image; in arrays.

    Attributes:
        rows: index rows, unit by unit; int64 ``[N]``.
        starts: where each unit's rows begin in ``rows``; int64 ``[U + 1]``.
        first: number of the first unit of each task, and U; four integers.
    """

    rows: NDArray[np.int64]
    starts: NDArray[np.int64]
    first: tuple[int, int, int, int]

    @classmethod
    def build(cls, index: StoreIndex, per_image: int) -> "UnitTable":
        """Cuts each image's samples of a task into the fewest units of at most ``per_image``, evenly."""
        # Rows of an image are adjacent, so a stable sort by task keeps them together, in the index's order.
        rows = np.argsort(index.tasks, kind="stable").astype(np.int64)
        tasks = index.tasks[rows]
        if per_image == 1:
            starts = np.arange(len(rows) + 1, dtype=np.int64)
        else:
            starts = _cut(tasks, index.images[rows], per_image)
        bounds = np.searchsorted(tasks[starts[:-1]], np.arange(4))
        return cls(rows, starts, (int(bounds[0]), int(bounds[1]), int(bounds[2]), int(bounds[3])))

    def count(self, task: int) -> int:
        """Units of a task."""
        return self.first[task + 1] - self.first[task]

    def samples(self, task: int) -> int:
        """Samples of a task."""
        return int(self.starts[self.first[task + 1]] - self.starts[self.first[task]])

    def per_sample(self, task: int) -> Fraction:
        """Units for each sample of a task (1 where it has none)."""
        samples = self.samples(task)
        return Fraction(self.count(task), samples) if samples else Fraction(1)

    def rows_of(self, units: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Index rows of the units, unit by unit, and where each unit's rows begin (one more than units)."""
        begin = self.starts[units]
        sizes = self.starts[units + 1] - begin
        splits = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        places = np.arange(splits[-1]) - np.repeat(splits[:-1], sizes) + np.repeat(begin, sizes)
        return self.rows[places], splits

    def task_rows(self, task: int) -> NDArray[np.int64]:
        """Index rows of all the task's samples."""
        return self.rows[self.starts[self.first[task]] : self.starts[self.first[task + 1]]]


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
