"""``summary.json``: what came out of a run; and the files that MLflow shows beside the curves."""

import json
import time
from pathlib import Path
from typing import Any

from pipelines.config import Config
from pipelines.runs.folder import CONFIG, ENVIRONMENT, REPLAY, SUMMARY, RunFolder
from pipelines.runs.job import Job, Outcome
from pipelines.runs.learning import result_warnings
from pipelines.runs.status import Ending
from pipelines.train.loop.advice import Totals


def conclude(
    folder: RunFolder, job: Job, outcome: Outcome, totals: Totals, ending: Ending, started: float,
    evaluate: bool, progress: bool,
) -> dict[str, Any]:  # fmt: skip
    """Writes the summary of a training that is through and, if asked, evaluates its export into it.

    Args:
        folder: of the run.
        job: the run.
        outcome: how the training went.
        totals: of the logged rows.
        ending: gets the last metrics and the files for MLflow.
        started: when the command began, seconds since the epoch.
        evaluate: whether to evaluate.
        progress: shows a bar.

    Returns:
        The content of ``summary.json``.
    """
    training = totals.plain()
    warnings = training.pop("warnings", [])
    if totals.first is not None:
        training["first_step_seconds"] = round(totals.first - started, 1)
    summary = {**_summary(job.config, outcome, started), "training": training, "warnings": warnings}
    write_summary(folder, summary)
    ending.artifacts = _artifacts(folder)
    if evaluate:
        from pipelines.evaluate.final import evaluate_run

        tasks = evaluate_run(folder, job.store, job.config, progress=progress)
        summary |= {
            "tasks": tasks,
            "wall_seconds": round(time.time() - started, 1),
            "warnings": [*warnings, *result_warnings(tasks)],
        }
        write_summary(folder, summary)
        ending.metrics = _task_metrics(tasks)
        ending.artifacts = _artifacts(folder)
    return summary


def write_summary(folder: RunFolder, summary: dict[str, Any]) -> None:
    """Writes ``summary.json`` of a run; raises ``LeaseLostError`` where it is another job's now."""
    folder.check_held()
    folder.local(SUMMARY).write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    folder.publish(SUMMARY)


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
        "exported": outcome.exported,
        "best": outcome.best,
        "stopped": outcome.stopped,
    }


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
