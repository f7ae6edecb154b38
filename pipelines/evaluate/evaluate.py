"""Evaluation of a model on a split of a store: the numbers, per sample and summed."""

import json
import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from pipelines.evaluate.absent import absent_report
from pipelines.evaluate.data import BenchmarkIndex, Index, open_index
from pipelines.evaluate.models import export_config
from pipelines.evaluate.pool import run_here, run_on_ray
from pipelines.evaluate.predictions import PREDICTIONS, Predictions
from pipelines.evaluate.presence import NoneRule
from pipelines.evaluate.records import SCHEMA, Portion
from pipelines.evaluate.resume import Finished, evaluation_key, forget_portions
from pipelines.evaluate.selection import choose_rows, portions
from pipelines.evaluate.summary import foreign_categories, stretched, summarise, vanished
from pipelines.evaluate.tables import markdown_table, stretched_in_words
from pipelines.evaluate.thresholds import best_thresholds
from pipelines.evaluate.worker import EvalJob
from pipelines.storage.filesystem import open_filesystem
from unigeoseg.errors import UserError
from unigeoseg.model import UniGeoSeg
from unigeoseg.samples.tokens import Tokenizer

log = logging.getLogger(__name__)

#: Columns of ``per_sample.parquet``; with saved predictions theirs follow.
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
    "presence",
)
#: Rows of ``per_sample.parquet`` whose predictions are in memory at a time.
_ROWS_AT_ONCE = 1 << 16
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
        table: a row a sample in store order, columns of :data:`pipelines.evaluate.records.SCHEMA` but the
            predictions.
        images: the image of each row of ``table``, any integers.
        scenes: the place that each row shows, any integers: what is drawn together in the bootstrap.
        result: the content of ``evaluation.json``.
        index: of the data.
        predictions: of the rows, on the disk; ``None`` where they were not asked for.
    """

    table: pa.Table
    images: np.ndarray[Any, np.dtype[np.int64]]
    scenes: np.ndarray[Any, np.dtype[np.int64]]
    result: dict[str, Any]
    index: Index
    predictions: Predictions | None = None


def evaluate_store(
    job: EvalJob,
    *,
    placement: Placement = Placement(),
    max_samples: int | None = None,
    seed: int = 0,
    images: int = 16,
    loaded: tuple[UniGeoSeg, Tokenizer] | None = None,
    progress: bool = False,
    resume: str | None = None,
    rule: NoneRule | None = None,
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
        rule: when the model is taken to say that there is none; told apart in ``none`` of the result.

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
    gathered = _Gathered(len(rows), job.keep_predictions, progress)
    for portion in finished.load():
        gathered.add(portion)
    todo = [part for part in parts if part[0] not in gathered.numbers]
    if len(todo) < len(parts):
        there = len(parts) - len(todo)
        log.info("going on with an unfinished evaluation: %d of %d portions are there", there, len(parts))
    if not todo:
        answers: Iterable[Portion] = ()
    elif placement.workers:
        answers = run_on_ray(job, todo, index, placement.workers, placement.cpus, placement.gpus)
    else:
        answers = run_here(job, todo, index, loaded)
    for portion in answers:
        finished.save(portion)
        gathered.add(portion)
    table, bad = gathered.close(), gathered.bad
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
        "none": {} if job.boxes else absent_report(table, scenes, rule),
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
    return Evaluation(table, index.images[here], scenes, result, index, gathered.predictions)


class _Gathered:
    """The portions of an evaluation, in whatever order they come.

    Args:
        total: samples, for the bar.
        predictions: whether the portions have them and they shall be kept.
        progress: shows a bar on a terminal.
    """

    def __init__(self, total: int, predictions: bool, progress: bool) -> None:
        self.predictions = Predictions() if predictions else None
        self.numbers: set[int] = set()
        self.bad: list[tuple[str, str]] = []
        self._tables: list[pa.Table] = []
        self._bar = tqdm(total=total, desc="evaluate", unit="sample", disable=None if progress else True)

    def add(self, portion: Portion) -> None:
        """Takes a portion."""
        if self.predictions is not None:
            self.predictions.add(portion.table)
        self.numbers.add(portion.number)
        self._tables.append(portion.table.drop_columns(list(PREDICTIONS)))
        self.bad += portion.bad
        self._bar.update(portion.table.num_rows + len(portion.bad))

    def close(self) -> pa.Table:
        """The rows of all portions in order."""
        self._bar.close()
        return pa.concat_tables(self._tables).sort_by("row").combine_chunks()


def conventions(job: EvalJob) -> str:
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
    with filesystem.open(f"{inside}/per_sample.parquet", "wb") as file:
        _write_samples(evaluation, file, save_predictions)
    forget_portions(out)
    return [
        f"{out.rstrip('/')}/{name}" for name in ("evaluation.json", "evaluation.md", "per_sample.parquet")
    ]


def _write_samples(evaluation: Evaluation, file: IO[bytes], save_predictions: bool) -> None:
    table = evaluation.table.select(PER_SAMPLE)
    if not save_predictions:
        pq.write_table(table, file)
        return
    if evaluation.predictions is None:
        raise ValueError("an evaluation without predictions cannot save them: EvalJob(keep_predictions=True)")
    rows = evaluation.table["row"].to_numpy()
    with pq.ParquetWriter(file, pa.schema([*table.schema, *map(SCHEMA.field, PREDICTIONS)])) as writer:
        for at in range(0, len(rows), _ROWS_AT_ONCE):
            part = table[at : at + _ROWS_AT_ONCE]
            found = evaluation.predictions.take(rows[at : at + _ROWS_AT_ONCE])
            for name in PREDICTIONS:
                part = part.append_column(SCHEMA.field(name), found[name])
            writer.write_table(part)
