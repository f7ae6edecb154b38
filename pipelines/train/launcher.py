"""The driver of a training run: checks, Ray Train, evaluation, summary."""

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pipelines.config import Config
from pipelines.plan.plan import Plan
from pipelines.store.fetch import Retry
from pipelines.store.index import StoreIndex
from pipelines.train.deepspeed_config import accumulation_steps
from pipelines.train.fit import fit
from pipelines.train.job import Job, Outcome
from pipelines.train.lease import held
from pipelines.train.prepare import check_data, make_job, prepare_run
from pipelines.train.progress import Progress
from pipelines.train.ray_session import ray_session
from pipelines.train.run_folder import CONFIG, ENVIRONMENT, REPLAY, SUMMARY, RunFolder
from pipelines.train.start import with_start
from pipelines.train.status import recorded
from pipelines.train.watch import Watcher


def train(
    config: Config,
    store: str,
    run: str | Path,
    resume: bool = False,
    progress: bool = True,
    evaluate: bool = True,
    allow: Sequence[str] = (),
    watcher: Watcher | None = None,
) -> dict[str, Any]:
    """Trains on a Ray cluster (a local one if there is none), evaluates, and writes the run folder.

    Args:
        config: the job.
        store: folder or ``s3://`` prefix.
        run: run folder or ``s3://`` prefix.
        resume: go on with the run that is there.
        progress: shows a bar or lines on stderr.
        evaluate: fills ``tasks`` of the summary from the held-out split.
        allow: settings that may differ from those of the run that is resumed.
        watcher: sees the rows, and may stop the run.

    Returns:
        The content of ``summary.json``.

    Raises:
        UserError: wrong input, found before training starts wherever that is possible.
        NonFiniteLossError: the loss was not finite; ``diagnostics/`` of the run holds the samples.
        RunStopped: ``watcher`` stopped it.
    """
    started = time.time()
    config = with_start(config)
    folder = RunFolder(run, Retry(patience_s=config.checkpoint.patience_s))
    accumulation_steps(config, config.scale.workers)
    index = StoreIndex.open(store, config.data.split)
    if evaluate:
        StoreIndex.open(store, config.evaluation.split)
    plan = Plan.from_config(index, config)
    folder.check_writable()
    try:
        with held(folder, config.recovery.lease_seconds) as lease:
            check = partial(check_data, folder, store, index, plan)
            found = prepare_run(config, folder, resume, allow, check)
            with ray_session(config):
                job = replace(make_job(config, store, folder, index, plan, found), lease=lease.token)
                with recorded(folder, job, index.fingerprint, plan.steps) as ending:
                    shown = Progress(plan.steps, progress)
                    outcome = fit(job, shown, watcher)
                    run_id = outcome.mlflow_run_id or job.tracking.run_id
                    ending.tracking = replace(job.tracking, run_id=run_id)
                    ending.unsent = outcome.unsent
                    summary = {**_summary(config, outcome, started), "training": shown.totals.plain()}
                    write_summary(folder, summary)
                    ending.artifacts = _artifacts(folder)
                    if evaluate:
                        summary = _evaluated(folder, job, summary, progress, started)
                        ending.metrics = _task_metrics(summary["tasks"])
                        ending.artifacts = _artifacts(folder)
    finally:
        folder.close()
    return summary


def _summary(config: Config, outcome: Outcome, started: float) -> dict[str, Any]:
    return {
        "tasks": {},
        "steps": outcome.steps,
        "samples_seen": outcome.samples_seen,
        "skipped_steps": outcome.skipped,
        "world_size": config.scale.workers,
        "zero_stage": config.engine.zero_stage,
        "mlflow_run_id": outcome.mlflow_run_id,
        "mlflow_unsent": outcome.unsent,
        "wall_seconds": round(time.time() - started, 1),
        "train_seconds": round(time.time() - started, 1),
        "checkpoint": outcome.checkpoint,
    }


def _evaluated(
    folder: RunFolder, job: Job, summary: dict[str, Any], progress: bool, started: float
) -> dict[str, Any]:
    from pipelines.evaluate.final import evaluate_run

    tasks = evaluate_run(folder, job.store, job.config, progress=progress)
    summary = {**summary, "tasks": tasks, "wall_seconds": round(time.time() - started, 1)}
    write_summary(folder, summary)
    return summary


def write_summary(folder: RunFolder, summary: dict[str, Any]) -> None:
    """Writes ``summary.json`` of a run."""
    folder.local(SUMMARY).write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    folder.publish(SUMMARY)


def _task_metrics(tasks: dict[str, dict[str, Any]]) -> dict[str, float]:
    return {
        f"val/{task}/{name}".replace("@", "_"): float(value)
        for task, values in tasks.items()
        for name, value in values.items()
        if isinstance(value, int | float)
    }


def _artifacts(folder: RunFolder) -> list[Path]:
    """Files that MLflow shows beside the curves."""
    names = [CONFIG, ENVIRONMENT, SUMMARY, REPLAY, "report.html"]
    names += ["evaluation/evaluation.md", "evaluation/evaluation.json"]
    found = [folder.base / name for name in names] + sorted((folder.base / "plots").glob("*.png"))
    return [path for path in found if path.is_file()]
