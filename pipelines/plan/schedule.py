"""From the configuration and an index to the shares of a plan."""

import math
from collections.abc import Sequence
from fractions import Fraction

from pipelines.config import Config
from pipelines.config.data import PTSConfig
from pipelines.plan.filters import Chosen
from pipelines.plan.pool import Pool
from pipelines.plan.units import PlanIndex, Positions, UnitTable
from unigeoseg.errors import UserError
from unigeoseg.schedules.pts import SCALE, IntShares, Number, Phase, Schedule, ShareCurve, build_curve
from unigeoseg.schedules.record import segment_counts
from unigeoseg.tasks import TASKS


def total_steps(config: Config, units: UnitTable) -> int:
    """Optimizer steps of a run: ``train.steps``, or the least number that covers ``train.epochs`` passes."""
    if config.train.steps is not None:
        return config.train.steps
    return max(1, math.ceil(config.train.epochs * units.first[3] / config.train.global_batch))


def make_schedule(pts: PTSConfig, counts: tuple[int, int, int]) -> Schedule:
    """The schedule, its natural shares taken from the numbers of samples.

    Raises:
        UserError: unknown task, negative or all-zero shares, phases out of order.
    """
    kind = pts.schedule
    if kind == "adaptive" or kind == "recorded":
        raise ValueError(f"a schedule that is {kind} has no formula: Plan.recorded makes its plan")
    base = base_shares(pts, counts)
    warmup = tuple(
        Phase(phase.until, _shares(phase.shares, f"pts.warmup[{i}].shares"))
        for i, phase in enumerate(pts.warmup)
    )
    return Schedule(base, kind, pts.end_weight, warmup)


def base_shares(pts: PTSConfig, counts: tuple[int, int, int]) -> tuple[Number, Number, Number]:
    """Shares at the start: the numbers of samples, or those of the configuration; any scale.

    Raises:
        UserError: unknown task.
    """
    return counts if pts.base == "natural" else _shares(pts.base, "pts.base")


def first_segments(config: Config, pool: Pool) -> list[IntShares]:
    """How an adaptive run begins: its warm-up phases, then one segment with the shares at the start.

    Args:
        config: of the run.
        pool: that it draws from.

    Returns:
        Positions of each task by segment, all of whole steps (:mod:`unigeoseg.schedules.record`).

    Raises:
        UserError: as :func:`make_schedule`.
    """
    pts, batch = config.pts, config.train.global_batch
    schedule = make_schedule(pts.model_copy(update={"schedule": "constant"}), pool.index.counts())
    steps, segments, done = total_steps(config, pool.units), [], 0
    for phase in schedule.warmup:
        end = round(phase.until * steps)
        if end > done:
            segments.append(segment_of(phase.shares, (end - done) * batch, pool))
            done = end
    if done < steps:
        length = min(pts.adaptive.segment_steps, steps - done)
        segments.append(segment_of(schedule.base, length * batch, pool))
    return segments


def segment_of(shares: Sequence[Number], positions: int, units: Positions) -> IntShares:
    """Positions of each task in a segment whose shares are over instructions."""
    weighted = [Fraction(s) * Fraction(units.per_sample(t)) for t, s in enumerate(shares)]
    return segment_counts(weighted, positions)


def make_curve(
    schedule: Schedule,
    length: int,
    units: Positions,
    samples: Chosen | PlanIndex,
    phases: Sequence[Sequence[Number]] = (),
) -> ShareCurve:
    """The integer shares over ``length`` positions.

    Args:
        schedule: shares over instructions.
        length: positions of the run.
        units: tells how many positions a sample takes.
        samples: that there are.
        phases: positions for each sample of all tasks, in each warm-up phase; as ``units`` if not given.

    Raises:
        UserError: a task has a share but no sample.
    """
    curve = build_curve(schedule, length, [units.per_sample(t) for t in range(3)], phases)
    check_samples(curve, units, samples)
    return curve


def check_samples(curve: ShareCurve, units: Positions, samples: Chosen | PlanIndex) -> None:
    """Every task that has a share needs samples.

    Raises:
        UserError: one has none; names the filter that took them, where it was one.
    """
    index = samples.index if isinstance(samples, Chosen) else samples
    if isinstance(samples, Chosen):
        samples.require([t for t in range(len(TASKS)) if curve.peak[t]])
    for t, task in enumerate(TASKS):
        if curve.peak[t] and not units.count(t):
            have = {TASKS[i]: n for i, n in enumerate(index.counts())}
            raise UserError(
                f"the schedule gives {task} a share of up to {curve.peak[t] / SCALE:.3f}, but split "
                f"{index.split!r} of {index.store} has no {task} sample (it has {have}); build samples of "
                "that task, or take its share away: pts.schedule=constant (or pts.end_weight=1), "
                "and pts.base and pts.warmup without it"
            )


def _shares(given: dict[str, float], where: str) -> tuple[float, float, float]:
    unknown = sorted(set(given) - set(TASKS))
    if unknown:
        raise UserError(f"{where}: unknown task {unknown[0]!r}; the tasks are {', '.join(TASKS)}")
    return given.get(TASKS[0], 0.0), given.get(TASKS[1], 0.0), given.get(TASKS[2], 0.0)
