"""The driver of a training run: checks, Ray Train, evaluation, summary."""

import json
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray.exceptions import GetTimeoutError, RayActorError
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback

from pipelines.config import Config
from pipelines.plan.plan import Plan
from pipelines.store.index import StoreIndex
from pipelines.train.channel import FATAL, ForwardWarnings, Listener, Mailbox, RayChannel
from pipelines.train.deepspeed_config import accumulation_steps
from pipelines.train.job import Job, Outcome
from pipelines.train.loop import run_loop
from pipelines.train.prepare import make_job, prepare_run
from pipelines.train.progress import Progress
from pipelines.train.ray_session import ray_session
from pipelines.train.run_folder import CONFIG, SUMMARY, RunFolder
from pipelines.train.tracking import end_run
from pipelines.train.watch import RunStopped, Watcher

_ABORT_SECONDS = 20


def train(
    config: Config,
    store: str,
    run: str | Path,
    resume: bool = False,
    progress: bool = True,
    evaluate: bool = True,
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
        watcher: sees the rows, and may stop the run.

    Returns:
        The content of ``summary.json``.

    Raises:
        UserError: wrong input, found before training starts wherever that is possible.
        NonFiniteLossError: the loss was not finite; ``diagnostics/`` of the run holds the samples.
        RunStopped: ``watcher`` stopped it.
    """
    started = time.time()
    folder = RunFolder(run)
    accumulation_steps(config, config.scale.workers)
    index = StoreIndex.open(store, config.data.split)
    if evaluate:
        StoreIndex.open(store, config.evaluation.split)
    plan = Plan.from_config(index, config)
    found = prepare_run(config, folder, resume)
    with ray_session(config):
        job = make_job(config, store, folder, index, plan, found)
        tracked, status = job.tracking, "FAILED"
        extra: dict[str, float] = {}
        try:
            outcome = _fit(job, Progress(plan.steps, progress), watcher)
            tracked = replace(tracked, run_id=outcome.mlflow_run_id or tracked.run_id)
            summary = _summary(config, outcome, started)
            write_summary(folder, summary)
            if evaluate:
                summary = _evaluated(folder, job, summary, progress, started)
                extra = _task_metrics(summary["tasks"])
            status = "FINISHED"
        except (KeyboardInterrupt, SystemExit, RunStopped):
            status = "KILLED"
            raise
        finally:
            end_run(tracked, status, extra, _artifacts(folder))
            folder.close()
    return summary


def _fit(job: Job, progress: Progress, watcher: Watcher | None) -> Outcome:
    """Runs the workers to the end, restarted as often as the configuration allows."""
    mailbox = ray.remote(num_cpus=0)(Mailbox).remote()
    try:
        with tempfile.TemporaryDirectory(prefix="unigeoseg-ray-") as bookkeeping:
            trainer = _trainer(job, mailbox, bookkeeping)

            def handle(kind: str, content: dict[str, Any]) -> None:
                if kind == FATAL:
                    trainer.abort()  # instead of a restart that ends the same way
                else:
                    progress.handle(kind, content)
                    if watcher is not None and kind == "row":
                        watcher.on_row(content)

            if watcher is not None:
                watcher.bind(trainer.abort)
            with Listener(lambda: ray.get(mailbox.drain.remote()), handle):
                try:
                    _run_workers(trainer, mailbox)
                except Exception as error:
                    if watcher is not None and watcher.stopped:
                        raise RunStopped("the run was stopped before its end") from error
                    raise
        outcome: Outcome | None = ray.get(mailbox.result.remote())
    finally:
        progress.close()
        ray.kill(mailbox)
    if outcome is None:
        raise RuntimeError("the training workers ended without a result")
    return outcome


def _run_workers(trainer: "_Trainer", mailbox: Any) -> None:
    try:
        trainer.fit()
    except (KeyboardInterrupt, SystemExit):
        trainer.abort()
        raise
    except Exception as error:
        raise ray.get(mailbox.failure.remote()) or error from None
    # A group that was restarted after a final error returns without one of its own.
    if failure := ray.get(mailbox.failure.remote()):
        raise failure


class _Trainer(TorchTrainer):
    """Ray Train's trainer with two of its habits changed.

    No placement-group cleaner where it cannot work: it asks the dashboard's state API every second whether
    the controller lives, and a local cluster of ours has no dashboard and ends with the driver anyway.
    Ctrl-C stays a ``KeyboardInterrupt``, so that the run is recorded as killed.
    """

    _controller: Any = None
    _aborted = False

    def abort(self) -> None:
        """Ends controller and workers, and frees what they held: a killed controller would keep it."""
        self._aborted = True
        if self._controller is None:
            return
        try:
            ray.get(self._controller.abort.remote(), timeout=_ABORT_SECONDS)
        except (RayActorError, GetTimeoutError):  # it exits inside the call
            pass
        ray.kill(self._controller)

    def _register_sigint_handler(self, controller: Any) -> None:
        self._controller = controller
        if self._aborted:
            self.abort()

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()
        if os.environ.get("RAY_ADDRESS"):
            return callbacks
        return [c for c in callbacks if not isinstance(c, PlacementGroupCleanerCallback)]


def _trainer(job: Job, mailbox: Any, bookkeeping: str) -> _Trainer:
    """The trainer; ``bookkeeping`` is for Ray Train's own files, as checkpoints are ours."""
    scale = job.config.scale
    per_worker = {"CPU": scale.cpus_per_worker, **scale.resources}
    if scale.gpus_per_worker:
        per_worker["GPU"] = scale.gpus_per_worker
    return _Trainer(
        _worker,
        train_loop_config={"job": job, "mailbox": mailbox},
        scaling_config=ray.train.ScalingConfig(
            num_workers=scale.workers, use_gpu=scale.gpus_per_worker > 0, resources_per_worker=per_worker
        ),
        run_config=ray.train.RunConfig(
            name=RunFolder(job.run).name,
            storage_path=bookkeeping,
            failure_config=ray.train.FailureConfig(max_failures=job.config.checkpoint.max_failures),
        ),
    )


def _worker(settings: dict[str, Any]) -> None:
    """What each Ray Train worker runs."""
    from pipelines.stream import open_stream

    mailbox = settings["mailbox"]
    channel = RayChannel(mailbox)
    with ForwardWarnings(channel):
        outcome = run_loop(settings["job"], channel, open_stream)
    if outcome is not None and ray.train.get_context().get_world_rank() == 0:
        ray.get(mailbox.finish.remote(outcome))


def _summary(config: Config, outcome: Outcome, started: float) -> dict[str, Any]:
    return {
        "tasks": {},
        "steps": outcome.steps,
        "samples_seen": outcome.samples_seen,
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
    names = [CONFIG, SUMMARY, "report.html"]
    plots = folder.base / "plots"
    return [folder.base / name for name in names] + (sorted(plots.glob("*.png")) if plots.is_dir() else [])
