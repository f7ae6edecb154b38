"""Evaluation of a model on a split of a store: the numbers, per sample and summed."""

import json
import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from pipelines.evaluate.data import BenchmarkIndex, Index, open_index
from pipelines.evaluate.models import export_config
from pipelines.evaluate.pool import run_here, run_on_ray
from pipelines.evaluate.records import Portion
from pipelines.evaluate.resume import Finished, evaluation_key, forget_portions
from pipelines.evaluate.selection import choose_rows, portions
from pipelines.evaluate.summary import foreign_categories, stretched, summarise, vanished
from pipelines.evaluate.tables import markdown_table, stretched_in_words
from pipelines.evaluate.thresholds import best_thresholds
from pipelines.evaluate.worker import Job
from pipelines.storage import open_filesystem
from unigeoseg.errors import UserError
from unigeoseg.model import UniGeoSeg
from unigeoseg.tokens import Tokenizer

log = logging.getLogger(__name__)

#: Columns of ``per_sample.parquet``; the last two only with saved predictions.
PER_SAMPLE = (
    "sample_id",
    "task",
    "subtask",
    "source",
    "category_id",
    "category",
    "height",
    "width",
    "mask_size",
    "truth_share",
    "truth_area",
    "predicted_share",
    "intersection",
    "union",
    "iou",
)
PREDICTIONS = ("prediction", "size")
_CONVENTIONS = (
    "IoU = intersection / (union + 1e-5), 1.0 for an empty union; gIoU: mean IoU; "
    "cIoU: sum of intersections / (sum of unions + 1e-10); Pr@t: share of samples with IoU > t"
)
_PLACES = {
    "letterbox": "on the letterboxed square, padding included",
    "inside": "on the letterboxed square, padding excluded",
    "original": "at the image's own size",
}


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
        scenes: the place that each row shows, any integers: what is drawn together in the bootstrap.
        result: the content of ``evaluation.json``.
        index: of the data.
    """

    table: pa.Table
    images: np.ndarray[Any, np.dtype[np.int64]]
    scenes: np.ndarray[Any, np.dtype[np.int64]]
    result: dict[str, Any]
    index: Index


def evaluate_store(
    job: Job,
    *,
    placement: Placement = Placement(),
    max_samples: int | None = None,
    seed: int = 0,
    images: int = 16,
    loaded: tuple[UniGeoSeg, Tokenizer] | None = None,
    progress: bool = False,
    resume: str | None = None,
) -> Evaluation:
    """Evaluates a model; the result does not depend on the placement, to the last bit.

    Args:
        job: model, store or benchmark, split, and what to measure.
        placement: this process, or Ray actors.
        max_samples: most samples of each task (a subset drawn by whole images), or ``None`` for all.
        seed: of the subset and of the bootstrap.
        images: images in a worker's unit of work; part of the result's definition, because a prediction may
            round differently beside other samples.
        loaded: a model and its tokenizer in memory, instead of ``job.model``; only in this process.
        progress: shows a bar on a terminal.
        resume: folder that keeps finished portions, so that a killed evaluation goes on when called again
            with the same arguments; not with a model in memory.

    Raises:
        UserError: no model, no data, an empty split, or no sample that can be used.
    """
    if loaded and (placement.workers or resume):
        raise ValueError("a model in memory is evaluated in this process and not resumed: workers=0")
    index = open_index(job.store, job.split, job.layout, job.turn)
    rows = choose_rows(index, max_samples, seed)
    parts = list(enumerate(portions(rows, index.images, images)))
    config = loaded[0].config if loaded else export_config(job.model.export)
    finished = Finished(resume, evaluation_key(job, index, rows, images) if resume else "")
    done = finished.load()
    todo = [part for part in parts if part[0] not in done]
    if done:
        log.info("going on with an unfinished evaluation: %d of %d portions are there", len(done), len(parts))
    if not todo:
        answers: Iterable[Portion] = ()
    elif placement.workers:
        answers = run_on_ray(job, todo, index, placement.workers, placement.cpus, placement.gpus)
    else:
        answers = run_here(job, todo, index, loaded)
    table, bad = _gather(done.values(), answers, finished, len(rows), progress)
    reasons = dict(Counter(reason for _, reason in bad))
    if not table.num_rows:
        raise UserError(
            f"none of the {len(rows)} samples of {job.store} ({job.split}) can be used: {reasons}"
        )
    if bad:
        log.warning("%d of %d samples cannot be used and are left out: %s", len(bad), len(rows), reasons)
    here = table["row"].to_numpy()
    scenes = index.scenes[here]
    result = summarise(table, scenes, seed, job.boxes) | {
        "model": job.model.export,
        "data": job.store,
        "layout": job.layout,
        "split": job.split,
        "fingerprint": index.fingerprint,
        "image_size": config.image_size,
        "compare": job.compare,
        "boxes": job.boxes,
        "turn": job.turn,
        "threshold": best_thresholds(table, job.threshold),
        "samples": {"split": len(index), "chosen": len(rows), "evaluated": table.num_rows},
        "scenes": len(np.unique(scenes)),
        "unusable": [{"sample_id": name, "reason": reason} for name, reason in sorted(bad)],
        "stretched": stretched(table),
        "files": index.files() if isinstance(index, BenchmarkIndex) else {},
        "vanished": vanished(table),
        "foreign_categories": foreign_categories(table),
        "conventions": conventions(job),
    }
    _warn(result)
    return Evaluation(table, index.images[here], scenes, result, index)


def _gather(
    done: Iterable[Portion], answers: Iterable[Portion], finished: Finished, total: int, progress: bool
) -> tuple[pa.Table, list[tuple[str, str]]]:
    """The rows of all portions in order, whichever came first, and the unusable samples."""
    tables, bad = [], []
    with tqdm(total=total, desc="evaluate", unit="sample", disable=None if progress else True) as bar:
        for portions_, fresh in ((done, False), (answers, True)):
            for portion in portions_:
                if fresh:
                    finished.save(portion)
                tables.append(portion.table)
                bad += portion.bad
                bar.update(portion.table.num_rows + len(portion.bad))
    return pa.concat_tables(tables).sort_by("row").combine_chunks(), bad


def conventions(job: Job) -> str:
    """The rules of the comparison in words."""
    what = "boxes of the largest 8-connected components" if job.boxes else "masks"
    return f"{_CONVENTIONS}; {what} compared {_PLACES[job.compare]}; ci95: bootstrap over scenes"


def _warn(result: dict[str, Any]) -> None:
    """Says what a reader of the numbers must know about data that do not fit the model."""
    if result["vanished"]:
        log.warning(
            "%d targets have no pixel left at the model's size of %d and count as empty: use a model with a "
            "larger image_size, or --compare original",
            result["vanished"],
            result["image_size"],
        )
    if result["stretched"]["n"]:
        log.warning("%s", stretched_in_words(result["stretched"]))
    if result["foreign_categories"]:
        log.warning(
            "the data were built with another taxonomy, their own names are used: %s",
            ", ".join(result["foreign_categories"][:5]),
        )


def write_evaluation(evaluation: Evaluation, out: str, save_predictions: bool) -> list[str]:
    """Writes ``evaluation.json``, ``evaluation.md`` and ``per_sample.parquet``; drops finished portions.

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
    forget_portions(out)
    return [
        f"{out.rstrip('/')}/{name}" for name in ("evaluation.json", "evaluation.md", "per_sample.parquet")
    ]
