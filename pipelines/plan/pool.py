"""The samples that a plan draws from, with each task's endless stream; which part of a run draws where."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.config import Config
from pipelines.plan.chairman import Counts
from pipelines.plan.filters import sources_of
from pipelines.plan.permute import derive_key, task_stream
from pipelines.plan.turns import Turns
from pipelines.plan.units import PlanIndex, UnitTable
from unigeoseg.tasks import TASKS


@dataclass(frozen=True)
class Pool:
    """Samples in units, and the order of their tasks' streams.

    Attributes:
        index: of the rows; its fingerprint tells which they are.
        units: of these rows.
        seed: of the plan.
        name: keeps the streams of pools apart; empty for the one that runs draw from by default.
        shares: of each source among a task's samples, by name; empty: as many as there are.
        recut: whether an image's samples are cut into other units at each pass.
    """

    index: PlanIndex
    units: UnitTable
    seed: int
    name: str = ""
    shares: tuple[tuple[str, float], ...] = ()
    recut: bool = False

    @classmethod
    def make(cls, index: PlanIndex, config: Config, name: str = "") -> "Pool":
        """The pool that a configuration makes of an index that is filtered already."""
        data, groups = config.data, None
        # By name, so that the order in which a configuration names them does not matter.
        shares = tuple(sorted((name, share) for name, share in data.source_shares.items() if share))
        if shares:
            codes, names = sources_of(index, "data.source_shares")
            number = {name: i for i, (name, _) in enumerate(shares)}
            # Rows of other sources are left out already: their group does not matter.
            groups = np.array([number.get(name, 0) for name in names], np.int64)[codes]
        units = UnitTable.build(index, data.instructions_per_image, groups=groups)
        return cls(index, units, config.seed, name, shares, data.recut and data.instructions_per_image > 1)

    def draw(
        self, ordinals: NDArray[np.int64], task: int
    ) -> tuple[NDArray[np.int64], NDArray[np.uint64] | None]:
        """Unit numbers at places of a task's endless stream, and how their images are cut into units.

        Args:
            ordinals: places, ascending.
            task: its id.
        """
        units, cuts = np.empty(len(ordinals), np.int64), np.zeros(len(ordinals), np.uint64)
        for places, own, first, count, name in self._streams(ordinals, task):
            units[places] = first + task_stream(own, count, self.seed, name)
            if self.recut:
                numbers, inverse = np.unique(own // count, return_inverse=True)
                keys = [derive_key(self.seed, "cut", name, int(number)) for number in numbers]
                cuts[places] = np.array(keys, np.uint64)[inverse]
        return units, cuts if self.recut else None

    def _streams(
        self, ordinals: NDArray[np.int64], task: int
    ) -> Iterator[tuple[NDArray[np.bool_] | slice, NDArray[np.int64], int, int, str]]:
        """A task's stream in those that take turns in it.

        Yields:
            Which places are of one, its own ordinals there, its first unit, number of units, and name.
        """
        name, turns = TASKS[task] + self.name, self._turns[task]
        if turns is None:
            yield slice(None), ordinals, self.units.first[task], self.units.count(task), name
            return
        who, own = turns.at(ordinals)
        for number, (source, _) in enumerate(self.shares):
            mine = who == number
            if mine.any():
                first, end = self.units.parts[task][number : number + 2]
                yield mine, own[mine], first, end - first, f"{name}/{source}"

    @cached_property
    def _turns(self) -> list[Turns | None]:
        """Of each task, whose turn it is; ``None`` where there is but one stream, or none."""
        weighed = [self._weighed(task) for task in range(len(TASKS))] if self.shares else []
        return [Turns(weights) if any(weights) else None for weights in weighed] or [None] * len(TASKS)

    def _weighed(self, task: int) -> list[Fraction]:
        """Share of each source among the positions of a task; shares are over samples."""
        weights = []
        for number, (_, share) in enumerate(self.shares):
            first, end = self.units.parts[task][number : number + 2]
            samples = self.units.samples_between(first, end)
            weights.append(Fraction(share) * Fraction(end - first, samples) if samples else Fraction(0))
        return weights

    def count(self, task: int) -> int:
        """Units of a task."""
        return self.units.count(task)

    def per_sample(self, task: int) -> Fraction:
        """Positions for each sample of a task."""
        turns = self._turns[task]
        if turns is None:
            return self.units.per_sample(task)
        samples = Fraction(0)  # in a period
        for number, turn in enumerate(turns.counts):
            first, end = self.units.parts[task][number : number + 2]
            if turn:
                samples += turn * Fraction(self.units.samples_between(first, end), end - first)
        return sum(turns.counts) / samples

    def weights(self) -> list[Fraction]:
        """Positions for each sample of all tasks."""
        return [self.per_sample(t) for t in range(len(TASKS))]

    def record(self) -> dict[str, Any]:
        """What the order of its streams depends on beside the seed."""
        found = {
            "index": self.index.fingerprint,
            "units": [self.units.count(t) for t in range(len(TASKS))],
        }
        if self.shares:
            turns = [turn.counts if turn else None for turn in self._turns]
            found |= {"sources": [name for name, _ in self.shares], "turns": turns, "parts": self.units.parts}
        return found | ({"recut": True} if self.recut else {})


class Leg(NamedTuple):
    """Positions from ``begin`` on draw from ``pool``, until the next leg.

    ``offset`` added to the positions that a task has before one gives its place in the pool's stream.
    """

    begin: int
    pool: Pool
    offset: Counts


def make_legs(begins: Sequence[tuple[int, Pool]], counts: Sequence[Counts]) -> list[Leg]:
    """Legs in which each pool's streams go on where its leg before ended.

    Args:
        begins: first position and pool of each leg, ascending, the first one 0.
        counts: positions of each task before each of these.
    """
    legs: list[Leg] = []
    used: dict[str, Counts] = {}
    for (begin, pool), here, there in zip(begins, counts, [*counts[1:], None], strict=True):
        done = used.get(pool.name, (0, 0, 0))
        offset = done[0] - here[0], done[1] - here[1], done[2] - here[2]
        legs.append(Leg(begin, pool, offset))
        if there is not None:
            used[pool.name] = there[0] + offset[0], there[1] + offset[1], there[2] + offset[2]
    return legs
