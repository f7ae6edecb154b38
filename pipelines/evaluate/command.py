"""What ``unigeoseg evaluate`` does: find the model, place the work, write the files."""

import os
import tempfile
from typing import Any

import ray

from pipelines.evaluate.evaluate import Placement, evaluate_store, write_evaluation
from pipelines.evaluate.models import ModelSource, find_export
from pipelines.evaluate.worker import Job
from unigeoseg.errors import UserError


def evaluate_command(
    model: str,
    data: str,
    split: str,
    out: str | None = None,
    save_predictions: bool = False,
    workers: int = 0,
    gpus_per_worker: float = 0.0,
    max_samples: int | None = None,
    seed: int = 0,
    images: int = 16,
) -> dict[str, Any]:
    """Evaluates and returns the content of ``evaluation.json``; the arguments are the command's options.

    Raises:
        UserError: no model, no store, an empty split, or ``out`` cannot be written.
    """
    job = Job(data, split, ModelSource(find_export(model)), keep_predictions=save_predictions)
    started = bool(workers) and _connect(workers)
    try:
        evaluation = evaluate_store(
            job,
            placement=Placement(workers, gpus=gpus_per_worker),
            max_samples=max_samples,
            seed=seed,
            images=images,
            progress=True,
        )
    finally:
        if started:
            ray.shutdown()
    if out:
        try:
            write_evaluation(evaluation, out, save_predictions)
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
