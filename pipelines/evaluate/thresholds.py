"""What other thresholds of the probability would have given, from counts that the workers keep."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from unigeoseg.metrics import SAMPLE_EPSILON
from unigeoseg.metrics import logit as logit
from unigeoseg.tasks import TASKS

#: Probabilities that are tried besides the one that is used.
TRIED: Final = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.8, 0.9)


def thresholds(used: float) -> list[float]:
    """The thresholds that are counted, ascending, ``used`` among them."""
    return sorted({*TRIED, used})


def levels_of(logits: NDArray[np.float32], used: float) -> NDArray[np.uint8]:
    """How many of :func:`thresholds` each pixel exceeds: a mask at the k-th of them is ``levels > k``."""
    edges = np.array([logit(t) for t in thresholds(used)], np.float32)
    return np.searchsorted(edges, logits, side="left").astype(np.uint8)


def counts_at(levels: NDArray[np.uint8], truth: NDArray[np.bool_], used: float) -> dict[str, list[int]]:
    """Intersection and union with ``truth`` at each of :func:`thresholds`."""
    bins = len(thresholds(used)) + 1
    # Pixels above the k-th threshold: those of a level over k.
    all_, inside = (
        np.bincount(part.ravel(), minlength=bins)[::-1].cumsum()[::-1][1:] for part in (levels, levels[truth])
    )
    return {"inter_at": inside.tolist(), "union_at": (all_ + int(truth.sum()) - inside).tolist()}


def best_thresholds(table: pa.Table, used: float) -> dict[str, Any]:
    """The threshold of the highest gIoU over all samples, and what it would have given.

    It is chosen on the samples that it is measured on, so a little too good.

    Args:
        table: an evaluation's, with ``inter_at`` and ``union_at``.
        used: the threshold of the evaluation.

    Returns:
        ``{"used", "best", "gIoU": {task: at best}, "tasks": {task: {"best", "gIoU"}}}``; ``best`` at the
        top is the one of the highest mean over the tasks.
    """
    grid = thresholds(used)
    by_task = {task: _gious(table.filter(pc.equal(table["task"], task))) for task in TASKS}
    found = {task: values for task, values in by_task.items() if values is not None}
    if not found:
        return {}
    mean = np.mean(list(found.values()), axis=0)
    best = _best(mean, grid, used)
    return {
        "used": used,
        "best": grid[best],
        "gIoU": {task: float(values[best]) for task, values in found.items()},
        "tasks": {
            task: {"best": grid[_best(values, grid, used)], "gIoU": float(values.max())}
            for task, values in found.items()
        },
    }


def in_words(found: Mapping[str, Any]) -> str:
    """One sentence for a report; empty where nothing is known."""
    if not found:
        return ""
    if found["best"] == found["used"]:
        return f"Masks at probability {found['used']:g}, the best threshold of those tried."
    reached = ", ".join(f"{task} {value:.3f}" for task, value in found["gIoU"].items())
    return (
        f"Masks at probability {found['used']:g}. The best one threshold for all, chosen on these very "
        f"samples, would be {found['best']:g}: gIoU {reached} (evaluation.threshold, --threshold)."
    )


def _best(values: Sequence[float] | NDArray[np.float64], grid: Sequence[float], used: float) -> int:
    """The place of the highest value; among equals the one nearest to ``used``."""
    top = max(values)
    return min((i for i, v in enumerate(values) if v == top), key=lambda i: abs(grid[i] - used))


def _gious(table: pa.Table) -> NDArray[np.float64] | None:
    """GIoU at each threshold."""
    if not table.num_rows or table["inter_at"].null_count:
        return None
    inter, union = (np.array(table[name].to_pylist(), np.float64) for name in ("inter_at", "union_at"))
    ious = np.where(union > 0, inter / (union + SAMPLE_EPSILON), 1.0)
    return np.asarray(ious.mean(0))
