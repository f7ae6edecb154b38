"""Evaluation of a model on a split of a store: the numbers, per sample and summed."""

import json
import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm import tqdm

from pipelines.evaluate.models import export_config
from pipelines.evaluate.pool import run_here, run_on_ray
from pipelines.evaluate.records import Portion
from pipelines.evaluate.selection import choose_rows, portions
from pipelines.evaluate.tables import markdown_table
from pipelines.evaluate.worker import Job
from pipelines.storage import open_filesystem
from pipelines.store.index import StoreIndex
from unigeoseg.errors import UserError
from unigeoseg.metrics import MetricSums, bootstrap_ci95
from unigeoseg.model import UniGeoSeg
from unigeoseg.tasks import TASKS
from unigeoseg.tokens import Tokenizer

log = logging.getLogger(__name__)

#: Columns of ``per_sample.parquet``; the last two only with saved predictions.
PER_SAMPLE = (
    "sample_id",
    "task",
    "subtask",
    "source",
    "category_id",
    "truth_area",
    "intersection",
    "union",
    "iou",
)
PREDICTIONS = ("prediction", "size")
CONVENTIONS = (
    "IoU = intersection / (union + 1e-5), 1.0 for an empty union; gIoU: mean IoU; "
    "cIoU: sum of intersections / (sum of unions + 1e-10); Pr@t: share of samples with IoU > t; "
    "masks compared on the letterboxed square, padding included; ci95: bootstrap over images"
)


@dataclass(frozen=True)
class Placement:
    """Where an evaluation runs.

    Attributes:
        workers: Ray actors; 0: in this process, without Ray.
        cpus: CPUs of an actor.
        gpus: GPUs of an actor.
    """

    workers: int = 0
    cpus: float = 1.0
    gpus: float = 0.0


@dataclass(frozen=True)
class Evaluation:
    """A finished evaluation.

    Attributes:
        table: a row a sample in store order, columns of :data:`pipelines.evaluate.records.SCHEMA`.
        images: the image of each row of ``table``, any integers.
        result: the content of ``evaluation.json``.
    """

    table: pa.Table
    images: np.ndarray[Any, np.dtype[np.int64]]
    result: dict[str, Any]


def evaluate_store(
    job: Job,
    *,
    placement: Placement = Placement(),
    max_samples: int | None = None,
    seed: int = 0,
    images: int = 16,
    loaded: tuple[UniGeoSeg, Tokenizer] | None = None,
    progress: bool = False,
) -> Evaluation:
    """Evaluates a model; the result does not depend on the placement, to the last bit.

    Args:
        job: model, store, split, and what to measure.
        placement: this process, or Ray actors.
        max_samples: most samples of each task (a subset drawn by whole images), or ``None`` for all.
        seed: of the subset and of the bootstrap.
        images: images in a worker's unit of work; part of the result's definition, because a prediction may
            round differently beside other samples.
        loaded: a model and its tokenizer in memory, instead of ``job.model``; only in this process.
        progress: shows a bar on a terminal.

    Raises:
        UserError: no model, no store, an empty split, or no sample that can be used.
    """
    index = StoreIndex.open(job.store, job.split)
    rows = choose_rows(index, max_samples, seed)
    parts = list(portions(rows, index.images, images))
    config = loaded[0].config if loaded else export_config(job.model.export)
    if placement.workers and loaded:
        raise ValueError("a model in memory is evaluated in this process: workers=0")
    answers = (
        run_on_ray(job, parts, placement.workers, placement.cpus, placement.gpus)
        if placement.workers
        else run_here(job, parts, loaded)
    )
    table, bad = _gather(answers, len(rows), progress)
    reasons = dict(Counter(reason for _, reason in bad))
    if not table.num_rows:
        raise UserError(
            f"none of the {len(rows)} samples of {job.store} ({job.split}) can be used: {reasons}"
        )
    if bad:
        log.warning("%d of %d samples cannot be used and are left out: %s", len(bad), len(rows), reasons)
    image = index.images[table["row"].to_numpy()]
    result = summarise(table, image, seed) | {
        "model": job.model.export,
        "data": job.store,
        "split": job.split,
        "fingerprint": index.fingerprint,
        "image_size": config.image_size,
        "samples": {"split": len(index), "chosen": len(rows), "evaluated": table.num_rows},
        "unusable": [{"sample_id": name, "reason": reason} for name, reason in sorted(bad)],
        "conventions": CONVENTIONS,
    }
    return Evaluation(table, image, result)


def _gather(answers: Iterable[Portion], total: int, progress: bool) -> tuple[pa.Table, list[tuple[str, str]]]:
    tables, bad = [], []
    with tqdm(total=total, desc="evaluate", unit="sample", disable=None if progress else True) as bar:
        for answer in answers:
            tables.append(answer.table)
            bad += answer.bad
            bar.update(answer.table.num_rows + len(answer.bad))
    return pa.concat_tables(tables).sort_by("row").combine_chunks(), bad


def summarise(table: pa.Table, images: Any, seed: int = 0) -> dict[str, Any]:
    """``tasks``, ``overall`` and ``sources`` of ``evaluation.json``; groups without samples are left out."""

    def group(mask: Any) -> dict[str, Any]:
        inter, union = (table[c].to_numpy()[mask] for c in ("intersection", "union"))
        sums = MetricSums().add_all(inter.tolist(), union.tolist())
        return {**sums.result(), "ci95": bootstrap_ci95(inter, union, images[mask], seed)}

    def groups(column: str, names: Iterable[str]) -> dict[str, Any]:
        masks = {name: pc.equal(table[column], name).to_numpy() for name in names}
        return {name: group(mask) for name, mask in masks.items() if mask.any()}

    return {
        "tasks": groups("task", TASKS),
        "overall": group(np.ones(table.num_rows, dtype=bool)),
        "sources": groups("source", sorted(set(table["source"].to_pylist()))),
    }


def write_evaluation(evaluation: Evaluation, out: str, save_predictions: bool) -> list[str]:
    """Writes ``evaluation.json``, ``evaluation.md`` and ``per_sample.parquet``.

    The same evaluation gives the same bytes.

    Returns:
        The paths of the files.
    """
    filesystem, inside = open_filesystem(out)
    filesystem.makedirs(inside, exist_ok=True)
    with filesystem.open(f"{inside}/evaluation.json", "w") as file:
        file.write(json.dumps(evaluation.result, indent=2, ensure_ascii=False) + "\n")
    with filesystem.open(f"{inside}/evaluation.md", "w") as file:
        file.write(markdown_table(evaluation.result))
    columns = [*PER_SAMPLE, *(PREDICTIONS if save_predictions else ())]
    with filesystem.open(f"{inside}/per_sample.parquet", "wb") as file:
        pq.write_table(evaluation.table.select(columns), file)
    return [
        f"{out.rstrip('/')}/{name}" for name in ("evaluation.json", "evaluation.md", "per_sample.parquet")
    ]
