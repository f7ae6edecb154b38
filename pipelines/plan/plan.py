"""The order of samples as a pure function: plan(index, schedule, seed) -> position -> sample.

A position's task comes from the shares (:mod:`pipelines.plan.chairman`); the position then takes the next
unit of that task's endless stream (:mod:`pipelines.plan.permute`). A global batch is B consecutive positions,
and a worker's part is a contiguous slice of it. Nothing depends on workers, buffers or history: any step can
be asked for at the same cost.
"""

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipelines.config import Config
from pipelines.config.batch import positions_per_worker
from pipelines.plan.chairman import Counts, assign, counts_at
from pipelines.plan.filters import chosen_samples
from pipelines.plan.phases import phase_begins, phase_pools
from pipelines.plan.pool import Leg, Pool, make_legs
from pipelines.plan.schedule import check_samples, first_segments, make_curve, make_schedule, total_steps
from pipelines.plan.units import PlanIndex, UnitTable
from unigeoseg.errors import UserError
from unigeoseg.schedules.pts import SCALE, IntShares, ShareCurve
from unigeoseg.schedules.record import recorded_curve

#: Changes whenever the same inputs would give another order.
VERSION: Final = 1
_CHUNK: Final = 1 << 16
_CHUNKS_KEPT: Final = 4


@dataclass(frozen=True)
class _Chunk:
    """Positions that are computed together: counts before them, task ids (int8), unit numbers (int64).

    ``cuts`` (uint64) are the keys by which images are cut into units; ``None`` where they are always alike.
    """

    counts: Counts
    tasks: NDArray[np.int8]
    units: NDArray[np.int64]
    cuts: NDArray[np.uint64] | None


@dataclass(frozen=True)
class PlanBatch:
    """Consecutive positions of one step: a global batch, or a worker's part of it.

    Attributes:
        step: optimizer step.
        position: first position.
        tasks: task id of each position; int8 ``[P]``.
        rows: index rows, position by position; int64.
        splits: where each position's rows begin in ``rows``; int64 ``[P + 1]``.
    """

    step: int
    position: int
    tasks: NDArray[np.int8]
    rows: NDArray[np.int64]
    splits: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.tasks)

    @property
    def positions(self) -> range:
        """The positions."""
        return range(self.position, self.position + len(self))

    @property
    def units(self) -> list[tuple[int, ...]]:
        """The index rows of each position."""
        return [tuple(part.tolist()) for part in np.split(self.rows, self.splits[1:-1])]

    @property
    def row_tasks(self) -> NDArray[np.int8]:
        """Task id of each row."""
        return np.repeat(self.tasks, np.diff(self.splits))

    def part(self, begin: int, end: int) -> "PlanBatch":
        """The positions from place ``begin`` to ``end`` of this batch."""
        low, high = self.splits[begin], self.splits[end]
        return PlanBatch(
            self.step,
            self.position + begin,
            self.tasks[begin:end],
            self.rows[low:high],
            self.splits[begin : end + 1] - low,
        )


class Plan:
    """The order of a run. Make it with :meth:`from_config`; any process gets the same one.

    Args:
        index: the samples.
        units: what positions stand for.
        curve: integer shares of each position.
        seed: of the order.
        batch_size: positions in one step, all workers together.
        steps: optimizer steps of the whole run.
        pool: of ``index`` and ``units``; made of them where it is not given.
        phases: first position and pool of parts of the run, for those that do not draw from ``pool``.

    Attributes:
        units: what positions stand for, outside phases of their own.
        pool: what they are drawn from.
    """

    def __init__(
        self,
        index: PlanIndex,
        units: UnitTable,
        curve: ShareCurve,
        seed: int,
        batch_size: int,
        steps: int,
        pool: Pool | None = None,
        phases: Sequence[tuple[int, Pool]] = (),
    ) -> None:
        self.units, self.curve = units, curve
        self.seed, self.batch_size, self.steps = seed, batch_size, steps
        self.pool = pool or Pool(index, units, seed)
        begins = list(phases) or [(0, self.pool)]
        self.legs = make_legs(begins, [counts_at(curve, begin) for begin, _ in begins])
        self._chunks: OrderedDict[int, _Chunk] = OrderedDict()
        self._lock = threading.Lock()

    @classmethod
    def from_config(cls, index: PlanIndex, config: Config) -> "Plan":
        """The plan of a training run on ``index``.

        Raises:
            UserError: a schedule that does not fit: negative shares, a share for a task without samples.
        """
        if config.pts.schedule == "recorded":
            return cls.recorded(index, config, config.pts.record)
        chosen = chosen_samples(index, config)
        if config.pts.base == "natural":
            chosen.require(range(3))
        pool = Pool.make(chosen.index, config)
        if config.pts.schedule == "adaptive":  # its beginning; training makes the rest
            return cls.recorded(index, config, first_segments(config, pool))
        steps, batch_size = total_steps(config, pool.units), config.train.global_batch
        schedule = make_schedule(config.pts, chosen.index.counts())
        pools = phase_pools(config, schedule, pool)
        curve = make_curve(schedule, steps * batch_size, pool, chosen, [p.weights() for p in pools])
        begins = phase_begins(schedule, steps * batch_size, pool, pools)
        return cls(chosen.index, pool.units, curve, config.seed, batch_size, steps, pool, begins)

    @classmethod
    def recorded(cls, index: PlanIndex, config: Config, segments: Sequence[IntShares]) -> "Plan":
        """The plan of a run whose shares were chosen on the way.

        Args:
            index: of the split.
            config: of the run; its ``pts`` section is not used.
            segments: positions of each task, segment by segment (:mod:`unigeoseg.schedules.record`). A longer
                record that begins with these segments gives the same order in them.

        Raises:
            UserError: a record that does not fit, or a share for a task without samples.
        """
        chosen = chosen_samples(index, config)
        pool = Pool.make(chosen.index, config)
        curve = recorded_curve(segments)
        check_samples(curve, pool, chosen)
        steps = total_steps(config, pool.units)
        return cls(chosen.index, pool.units, curve, config.seed, config.train.global_batch, steps, pool)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of everything that the order depends on."""
        content = {
            "version": VERSION,
            "shares": self.curve.record(),
            "seed": self.seed,
            "batch": self.batch_size,
            **self.pool.record(),
        }
        if len(self.legs) > 1:
            content["legs"] = [[leg.begin, leg.pool.name, leg.pool.record()] for leg in self.legs]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def span(
        self, begin: int, end: int
    ) -> tuple[NDArray[np.int8], NDArray[np.int64], NDArray[np.uint64] | None]:
        """Task ids (int8), unit numbers (int64) and cuts (:class:`Pool`) of the positions [begin, end)."""
        parts = []
        for number in range(begin // _CHUNK, -(-end // _CHUNK)):
            chunk = self._chunk(number)
            here = slice(max(begin - number * _CHUNK, 0), min(end - number * _CHUNK, _CHUNK))
            cuts = None if chunk.cuts is None else chunk.cuts[here]
            parts.append((chunk.tasks[here], chunk.units[here], cuts))
        if len(parts) == 1:
            return parts[0]
        if not parts:
            return np.empty(0, np.int8), np.empty(0, np.int64), None
        cut = [cuts for _, _, cuts in parts if cuts is not None]
        return (
            np.concatenate([tasks for tasks, _, _ in parts]),
            np.concatenate([units for _, units, _ in parts]),
            np.concatenate(cut) if cut else None,
        )

    def positions(self, begin: int, end: int, step: int = 0) -> PlanBatch:
        """The positions [begin, end) with their rows."""
        tasks, units, cuts = self.span(begin, end)
        rows, sizes = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for leg, low, high in self._legs(begin, end):
            here = slice(low - begin, high - begin)
            part, splits = leg.pool.units.rows_of(units[here], None if cuts is None else cuts[here])
            rows.append(part)
            sizes.append(np.diff(splits))
        starts = np.concatenate([[0], np.cumsum(np.concatenate(sizes))]).astype(np.int64)
        return PlanBatch(step, begin, tasks, np.concatenate(rows), starts)

    def batch(self, step: int) -> PlanBatch:
        """The global batch of a step.

        Raises:
            UserError: the plan has no such step.
        """
        if not 0 <= step < self.steps:
            raise UserError(
                f"step {step} is not in the plan, which has the steps 0 to {self.steps - 1}; ask for fewer, "
                "or raise train.steps or train.epochs"
            )
        return self.positions(step * self.batch_size, (step + 1) * self.batch_size, step)

    def rank_slice(self, step: int, rank: int, world: int) -> PlanBatch:
        """The part of a step that worker ``rank`` of ``world`` has: contiguous, all parts of equal length."""
        part = positions_per_worker(self.batch_size, world)
        return self.batch(step).part(rank * part, (rank + 1) * part)

    def samples_in(self, step: int) -> int:
        """Instructions in the global batch of a step."""
        return int(self.batch(step).splits[-1])

    def share_at(self, position: int) -> NDArray[np.float64]:
        """Target shares of the tasks at a position, over instructions; float64 ``[3]``, sums to 1."""
        ((leg, _, _),) = self._legs(position, position + 1)
        per_unit = [1.0 / float(weight) for weight in leg.pool.weights()]
        shares = np.array(self.curve.at(position), np.float64) / SCALE * per_unit
        return np.asarray(shares / shares.sum())

    def counts_at(self, position: int) -> Counts:
        """Positions that each task has before ``position``."""
        return counts_at(self.curve, position)

    def substitute(self, position: int, slot: int, attempt: int) -> int:
        """The index row that stands in for a bad sample: the next one of its task's stream.

        It depends on the plan and the place alone, so it is the same for any number of workers; the sample
        comes once more where the stream itself has it.

        Args:
            position: the plan position of the bad sample.
            slot: its place within the position's rows.
            attempt: 0 for the first stand-in, 1 if that is bad too, and so on.
        """
        chunk = self._chunk(position // _CHUNK)
        place = position % _CHUNK
        task = int(chunk.tasks[place])
        before = chunk.counts[task] + int(np.count_nonzero(chunk.tasks[:place] == task))
        ((leg, _, _),) = self._legs(position, position + 1)
        unit, cut = leg.pool.draw(np.array([before + leg.offset[task] + 1 + attempt]), task)
        rows, _ = leg.pool.units.rows_of(unit, cut)
        return int(rows[slot % len(rows)])

    def passes(self, task: int) -> float:
        """How often the run draws each sample of a task, on average, outside phases of their own."""
        own = sum(drawn[task] for leg, drawn in self._drawn() if leg.pool is self.pool)
        return own / self.units.count(task) if self.units.count(task) else 0.0

    def instructions(self) -> float:
        """How many samples the run draws, expected."""
        return sum(drawn[t] / float(leg.pool.per_sample(t)) for leg, drawn in self._drawn() for t in range(3))

    def _drawn(self) -> list[tuple[Leg, Counts]]:
        """Positions of each task in each leg of the run."""
        ends = [*(leg.begin for leg in self.legs[1:]), self.steps * self.batch_size]
        found = []
        for leg, end in zip(self.legs, ends, strict=True):
            a, b, c = (y - x for x, y in zip(self.counts_at(leg.begin), self.counts_at(end), strict=True))
            found.append((leg, (a, b, c)))
        return found

    def _legs(self, begin: int, end: int) -> list[tuple[Leg, int, int]]:
        """The legs that the positions [begin, end) lie in, and which of them are in each."""
        ends = [leg.begin for leg in self.legs[1:]]
        return [
            (leg, max(begin, leg.begin), end if stop is None else min(end, stop))
            for leg, stop in zip(self.legs, [*ends, None], strict=True)
            if leg.begin < end and (stop is None or stop > begin)
        ]

    def _chunk(self, number: int) -> _Chunk:
        with self._lock:
            found = self._chunks.get(number)
            if found is None:
                found = self._chunks[number] = self._compute(number * _CHUNK)
                if len(self._chunks) > _CHUNKS_KEPT:
                    self._chunks.popitem(last=False)
            self._chunks.move_to_end(number)
            return found

    def _compute(self, begin: int) -> _Chunk:
        counts = counts_at(self.curve, begin)
        tasks = assign(self.curve, begin, begin + _CHUNK, counts)
        units = np.empty(_CHUNK, np.int64)
        cuts = np.zeros(_CHUNK, np.uint64) if self.pool.recut else None
        for t in range(3):
            places = np.flatnonzero(tasks == t)
            ordinals = counts[t] + np.arange(len(places), dtype=np.int64)
            for leg, low, high in self._legs(begin, begin + _CHUNK):
                here = slice(*np.searchsorted(places, [low - begin, high - begin]))
                if len(places[here]):
                    drawn, cut = leg.pool.draw(ordinals[here] + leg.offset[t], t)
                    units[places[here]] = drawn
                    if cuts is not None and cut is not None:
                        cuts[places[here]] = cut
        return _Chunk(counts, tasks, units, cuts)
