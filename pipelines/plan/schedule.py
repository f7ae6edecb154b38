"""From the configuration and an index to the shares of a plan."""

import math

from pipelines.config import Config, PTSConfig
from pipelines.plan.units import PlanIndex, UnitTable
from unigeoseg.errors import UserError
from unigeoseg.pts import SCALE, Number, Phase, Schedule, ShareCurve, build_curve
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
    if pts.schedule == "recorded":
        raise ValueError("a recorded schedule has no formula: Plan.recorded makes its plan")
    base: tuple[Number, Number, Number] = counts if pts.base == "natural" else _shares(pts.base, "pts.base")
    warmup = tuple(
        Phase(phase.until, _shares(phase.shares, f"pts.warmup[{i}].shares"))
        for i, phase in enumerate(pts.warmup)
    )
    return Schedule(base, pts.schedule, pts.end_weight, warmup)


def make_curve(schedule: Schedule, length: int, units: UnitTable, index: PlanIndex) -> ShareCurve:
    """The integer shares over ``length`` positions.

    Raises:
        UserError: a task has a share but no sample.
    """
    curve = build_curve(schedule, length, [units.per_sample(t) for t in range(3)])
    check_samples(curve, units, index)
    return curve


def check_samples(curve: ShareCurve, units: UnitTable, index: PlanIndex) -> None:
    """Every task that has a share needs samples.

    Raises:
        UserError: one has none.
    """
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
