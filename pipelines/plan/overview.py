"""A plan in numbers: what it will draw, without drawing it."""

from typing import Any

from pipelines.plan.plan import Plan
from pipelines.store.index import StoreIndex
from unigeoseg.tasks import TASKS

_PROGRESS = (0.0, 0.25, 0.5, 0.75, 1.0)


def overview(plan: Plan, index: StoreIndex, batches: int = 3) -> dict[str, Any]:
    """Steps, passes and shares of each task, the first batches, the fingerprint.

    Args:
        plan: of the run.
        index: that the plan was made for.
        batches: how many of the first batches to list.

    Returns:
        Plain values: ``fingerprint``, ``steps``, ``global_batch``, ``instructions`` (expected over the run),
        ``progress`` (where shares are given), ``tasks`` (samples, positions, passes, shares of each),
        ``left_out`` (samples of the split that the plan does not draw), ``phases`` (where the run begins to
        draw from other samples, and how many there are), ``sources`` (their shares, where they are set),
        ``first_batches`` (step, sample_ids, tasks).
    """
    total = plan.steps * plan.batch_size
    counts = plan.counts_at(total)
    tasks = {}
    for t, task in enumerate(TASKS):
        samples, passes = plan.units.samples(t), plan.passes(t)
        shares = [float(plan.share_at(min(round(p * total), total - 1))[t]) for p in _PROGRESS]
        tasks[task] = {"samples": samples, "positions": counts[t], "passes": passes, "shares": shares}
    first = [plan.batch(step) for step in range(min(batches, plan.steps))]
    return {
        "fingerprint": plan.fingerprint,
        "steps": plan.steps,
        "global_batch": plan.batch_size,
        "instructions": round(plan.instructions()),
        "progress": list(_PROGRESS),
        "tasks": tasks,
        "left_out": len(index) - sum(plan.units.samples(t) for t in range(len(TASKS))),
        "phases": [
            {
                "step": leg.begin / plan.batch_size,
                "samples": {task: leg.pool.units.samples(t) for t, task in enumerate(TASKS)},
            }
            for leg in plan.legs
        ],
        **({"sources": dict(plan.pool.shares)} if plan.pool.shares else {}),
        "first_batches": [
            {
                "step": b.step,
                "sample_ids": index.sample_ids(b.rows),
                "tasks": [TASKS[t] for t in b.row_tasks],
            }
            for b in first
        ],
    }
