"""The measures of a run's ``summary.json``: the result of each task beside its yardsticks."""

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.evaluate.evaluate import Evaluation
from unigeoseg.metrics import resampling_weights
from unigeoseg.tasks import INTERACTIVE

#: Keys of a measured mean and the column that it is the mean of.
_MEANS = {
    "untrained_gIoU": "untrained_iou",
    "all_foreground_gIoU": "all_foreground_iou",
    "category_gIoU": "category_iou",
}
_RESAMPLES = 1000


def measure_tasks(evaluation: Evaluation, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Per task: metrics, the untrained model, all foreground, same-category swap, and the oracles.

    Keys beyond those of ``evaluation.json``:

    * ``untrained_gIoU``, ``all_foreground_gIoU``: same samples, fresh weights of the run's seed; the whole
      image as mask.
    * ``swap_own_gIoU``, ``swapped_gIoU``, ``swap_n``: over samples whose image has another sample of the same
      task and category with a different mask: gIoU under the own instruction, and gIoU of the predictions
      for the others' instructions against the own truth. ``swap_drop_ci95`` is the bootstrap interval of the
      difference. A model that only finds the category shows no difference.
    * ``category_gIoU``: oracle, all regions of the right category that the image's samples show;
      ``filled_box_gIoU``: oracle, the truth's tight box filled (interactive only).

    A measure without samples is ``None``.
    """
    result: dict[str, dict[str, Any]] = {}
    for task, metrics in evaluation.result["tasks"].items():
        mask = pc.equal(evaluation.table["task"], task)
        table, scenes = evaluation.table.filter(mask), evaluation.scenes[mask.to_numpy()]
        measures: dict[str, Any] = dict(metrics)
        measures |= {key: mean(table[column]) for key, column in _MEANS.items()}
        if task == INTERACTIVE:
            measures["filled_box_gIoU"] = mean(table["filled_box_iou"])
        pairs = pc.is_valid(table["swapped_iou"])
        swap = table.filter(pairs)
        measures["swap_n"] = swap.num_rows
        measures["swap_own_gIoU"], measures["swapped_gIoU"] = mean(swap["iou"]), mean(swap["swapped_iou"])
        if swap.num_rows:
            drop = swap["iou"].to_numpy() - swap["swapped_iou"].to_numpy()
            measures["swap_drop_ci95"] = mean_ci95(drop, scenes[pairs.to_numpy()], seed)
        result[task] = measures
    return result


def mean(column: pa.ChunkedArray) -> float | None:
    """The mean of the valid values, rounded once; ``None`` if there are none."""
    values = [v for v in column.to_pylist() if v is not None]
    return math.fsum(values) / len(values) if values else None


def mean_ci95(values: Any, scenes: Any, seed: int) -> list[float]:
    """95 % bootstrap interval of a mean of differences of IoU, resampling scenes; [-1, 1] with one alone."""
    _, scene = np.unique(scenes, return_inverse=True)
    count = int(scene.max()) + 1
    if count == 1:
        return [-1.0, 1.0]
    totals, sizes = np.bincount(scene, values, count), np.bincount(scene, minlength=count)
    draws = np.concatenate([(w @ totals) / (w @ sizes) for w in resampling_weights(count, seed, _RESAMPLES)])
    return [round(float(v), 6) for v in np.quantile(draws, [0.025, 0.975])]
