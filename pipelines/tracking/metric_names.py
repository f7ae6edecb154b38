"""The names under which MLflow and the comparison of runs show a logged step, and what is better of each."""

import math
from collections.abc import Mapping
from typing import Any, Final

from unigeoseg.tasks import TASKS

_OVERLAPS: Final = ("gIoU", "cIoU")
#: What checkpoints can be the best by, and whether more is better; ``val/gIoU`` is the mean over tasks.
BEST_BY: Final[dict[str, bool]] = {
    "loss": False,
    **{f"val/{name}": True for name in _OVERLAPS},
    **{f"val/{task}/{name}": True for task in TASKS for name in _OVERLAPS},
}


def validation_metrics(val: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """An evaluation on the way under the names of :data:`BEST_BY`; tasks without a sample count for nothing.

    Args:
        val: gIoU and cIoU by task, as a row of ``metrics.jsonl`` has them.
    """
    named = {f"val/{task}/{name}": val[task][name] for task in val for name in _OVERLAPS}
    means = {
        f"val/{name}": sum(found[name] for found in val.values()) / len(val) for name in _OVERLAPS if val
    }
    return means | named


def flat_metrics(row: dict[str, Any]) -> dict[str, float]:
    """A row under the names that MLflow shows."""
    named: dict[str, Any] = {
        "train/loss": row["loss"],
        "train/lr": row["lr"],
        "train/grad_norm": row["grad_norm"],
        "train/epoch": row["epoch"],
        "train/samples_seen": row["samples_seen"],
        "train/skipped_steps": row.get("skipped_steps"),
        "train/world_size": row.get("world_size"),
        "data/quarantined": row["quarantined"],
        "data/storage_retries": row["storage_retries"],
    }
    groups = {
        "train/loss": ("losses", "task_losses"),
        "masks/empty": ("empty",),
        "masks/full": ("full",),
        "masks/soft_dice": ("soft_dice",),
        "masks/false_alarms": ("false_alarms",),
        "train/grad_norm": ("grad_norms",),
        "pts/share": ("target_shares",),
        "pts/realised": ("shares",),
        "perf": ("rates",),
        "perf/compiled": ("compiled",),
        "perf/seconds": ("waits",),
        "system/memory_mib": ("memory",),
        "system/memory_share": ("memory_share",),
    }
    for prefix, keys in groups.items():
        for key in keys:
            named |= {f"{prefix}/{name}": value for name, value in row.get(key, {}).items()}
    named |= {f"checkpoint/{name}": value for name, value in row.get("checkpoint", {}).items()}
    for part in ("val", "train_eval"):
        for task, values in row.get(part, {}).items():
            named |= {f"{part}/{task}/{name}": value for name, value in values.items()}
    return {name: float(value) for name, value in named.items() if value is not None and math.isfinite(value)}
