"""The samples that a plan draws from, with each task's endless stream; which part of a run draws where."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.config import Config
from pipelines.plan.chairman import Counts
from pipelines.plan.permute import task_stream
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
    """

    index: PlanIndex
    units: UnitTable
    seed: int
    name: str = ""

    @classmethod
    def make(cls, index: PlanIndex, config: Config, name: str = "") -> "Pool":
        """The pool that a configuration makes of an index that is filtered already."""
        return cls(index, UnitTable.build(index, config.data.instructions_per_image), config.seed, name)

    def draw(self, ordinals: NDArray[np.int64], task: int) -> NDArray[np.int64]:
        """Unit numbers at places of a task's endless stream; ``ordinals`` ascend."""
        stream = task_stream(ordinals, self.units.count(task), self.seed, TASKS[task] + self.name)
        return self.units.first[task] + stream

    def count(self, task: int) -> int:
        """Units of a task."""
        return self.units.count(task)

    def per_sample(self, task: int) -> Fraction:
        """Positions for each sample of a task."""
        return self.units.per_sample(task)

    def weights(self) -> list[Fraction]:
        """Positions for each sample of all tasks."""
        return [self.per_sample(t) for t in range(len(TASKS))]

    def record(self) -> dict[str, Any]:
        """What the order of its streams depends on beside the seed."""
        return {"index": self.index.fingerprint, "units": [self.units.count(t) for t in range(len(TASKS))]}


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
