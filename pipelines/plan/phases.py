"""Warm-up phases that draw from samples of their own."""

from collections.abc import Sequence

from pipelines.config import Config
from pipelines.config.data import SampleFilter
from pipelines.plan.filters import filtered
from pipelines.plan.pool import Pool
from unigeoseg.schedules.pts import Schedule


def phase_pools(config: Config, schedule: Schedule, pool: Pool) -> list[Pool]:
    """What each warm-up phase draws from; phases with the same filters share a pool, and its passes.

    Args:
        config: of the run.
        schedule: with the shares of the phases.
        pool: of the rest of the run; that of phases without filters too.

    Raises:
        UserError: filters that leave a task of their phase empty, or ask what the index does not tell.
    """
    known: dict[tuple[SampleFilter, ...], Pool] = {(): pool}
    pools = []
    for i, (phase, shares) in enumerate(zip(config.pts.warmup, schedule.warmup, strict=True)):
        chosen = filtered(pool.index, phase.filters, f"pts.warmup[{i}].filters")
        chosen.require([task for task, share in enumerate(shares.shares) if share])
        if phase.filters not in known:
            known[phase.filters] = Pool.make(chosen.index, config, f"/warmup{i}")
        pools.append(known[phase.filters])
    return pools


def phase_begins(
    schedule: Schedule, length: int, pool: Pool, pools: Sequence[Pool]
) -> list[tuple[int, Pool]]:
    """Where the run begins to draw from another pool, from position 0 on; no entry where there is but one.

    Args:
        schedule: with the ends of the phases.
        length: positions of the run.
        pool: of what comes after the phases.
        pools: of the phases.
    """
    begins: list[tuple[int, Pool]] = []
    begin = 0
    for phase, own in zip(schedule.warmup, pools, strict=True):
        end = phase.end(length)
        if end > begin and (not begins or begins[-1][1] is not own):
            begins.append((begin, own))
        begin = max(begin, end)
    if not begins or begins[-1][1] is not pool:
        begins.append((begin, pool))
    return begins if len(begins) > 1 else []
