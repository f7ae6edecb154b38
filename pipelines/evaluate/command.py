"""What ``unigeoseg evaluate`` does: find the model, place the work, write the files."""

import logging
import os
import tempfile
from pathlib import Path
from typing import Any, Literal

import ray

from pipelines.evaluate.data import BenchmarkIndex, choose_data
from pipelines.evaluate.evaluate import Placement, evaluate_store, write_evaluation
from pipelines.evaluate.models import ModelSource, find_export
from pipelines.evaluate.pictures import draw_evaluation
from pipelines.evaluate.published import beside, read_published
from pipelines.evaluate.worker import Job
from unigeoseg.errors import UserError

log = logging.getLogger(__name__)


def evaluate_command(
    model: str,
    data: str,
    split: str | None = None,
    out: str | None = None,
    save_predictions: bool = False,
    workers: int = 0,
    gpus_per_worker: float = 0.0,
    max_samples: int | None = None,
    seed: int = 0,
    images: int = 16,
    layout: str | None = None,
    compare: Literal["letterbox", "inside", "original"] = "letterbox",
    boxes: bool | None = None,
    threshold: float = 0.5,
    published: str | None = None,
    plots: bool = True,
    turn: bool = True,
) -> dict[str, Any]:
    """Evaluates and returns the content of ``evaluation.json``; the arguments are the command's options.

    With ``out``, finished portions are kept there until the end: the same call again goes on after a kill.

    Raises:
        UserError: no model, no data, missing files, an empty split, or ``out`` cannot be written.
    """
    if published:
        read_published(Path(published))  # a mistake there must not cost an evaluation
    choice = choose_data(data, split, layout, turn)
    if split is None:
        log.info("%s: split %s", data, choice.split)
    job = Job(
        data,
        choice.split,
        ModelSource(find_export(model)),
        keep_predictions=save_predictions or bool(out and plots),
        layout=choice.layout,
        compare=compare,
        boxes=choice.boxes if boxes is None else boxes,
        threshold=threshold,
        turn=turn,
    )
    started = bool(workers) and _connect(workers)
    try:
        evaluation = evaluate_store(
            job,
            placement=Placement(workers, gpus=gpus_per_worker),
            max_samples=max_samples,
            seed=seed,
            images=images,
            progress=True,
            resume=out,
        )
    finally:
        if started:
            ray.shutdown()
    own = evaluation.index.published() if isinstance(evaluation.index, BenchmarkIndex) else {}
    ids = evaluation.table["sample_id"].to_pylist()
    evaluation.result["published"] = beside(evaluation.result, ids, own, published)
    if out:
        try:
            write_evaluation(evaluation, out, save_predictions)
            if plots:
                draw_evaluation(evaluation, out, seed)
        except OSError as error:
            raise UserError(f"cannot write to --out {out}: {error}; choose another folder") from error
    return evaluation.result


def _connect(workers: int) -> bool:
    """Connects to the cluster that ``RAY_ADDRESS`` names, else starts a local one; whether it did."""
    if ray.is_initialized():
        return False
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False)
        return True
    available = os.cpu_count() or 1
    if workers > available:
        raise UserError(f"--workers {workers}: this machine has {available} CPUs; use --workers {available}")
    folder = tempfile.mkdtemp(prefix="ugs-")
    ray.init(
        address="local", num_cpus=workers, include_dashboard=False, log_to_driver=False, _temp_dir=folder
    )
    return True
