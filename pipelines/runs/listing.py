"""The runs of a folder: what state each is in, and the record set straight where a job could not do it."""

import logging
import time
from dataclasses import dataclass
from typing import Any

from pipelines.config import Config
from pipelines.runs.folder import CONFIG, METRICS, SUMMARY, RunFolder
from pipelines.runs.ledger import read_rows
from pipelines.runs.manifest import committed_steps
from pipelines.runs.mlflow_link import remembered
from pipelines.runs.status import KILLED, RUNNING, Ending, close_run, read_status, write_status
from pipelines.storage.filesystem import open_filesystem, storage_errors
from pipelines.storage.lease import holder_of
from pipelines.storage.secrets import reveal
from pipelines.storage.yaml_text import load_yaml
from pipelines.tracking.tracker import UNSENT, Tracker, TrackingRun
from unigeoseg.errors import UserError

logger = logging.getLogger(__name__)
UNKNOWN = "unknown"


@dataclass(frozen=True)
class RunRow:
    """One run as the list shows it.

    Attributes:
        name: last part of its path.
        path: of the folder.
        state: running, finished, failed, killed, or unknown for a folder of an older version.
        step: optimizer steps done.
        steps: of the whole run, if known.
        loss: last logged one.
        best: ``{"name", "value"}``: mean gIoU over the tasks once evaluated, else the lowest logged loss.
        checkpoint_step: of the newest committed checkpoint.
        age_s: seconds since something last happened.
        error: why it failed.
        mlflow_run_id: its record there.
        mlflow_closed: whether MLflow has all of it and its final status.
    """

    name: str
    path: str
    state: str
    step: int
    steps: int | None
    loss: float | None
    best: dict[str, Any] | None
    checkpoint_step: int | None
    age_s: float | None
    error: str | None
    mlflow_run_id: str | None
    mlflow_closed: bool


def list_runs(folder: str) -> list[RunRow]:
    """All runs directly below ``folder``, the newest first.

    A run whose job is gone without a word is set to killed, and what MLflow missed is delivered.

    Raises:
        UserError: there is no such folder.
    """
    fs, root = open_filesystem(folder)
    prefix = folder.split("://", 1)[0] + "://" if "://" in folder else ""
    try:
        entries = sorted(str(entry) for entry in fs.ls(root, detail=False))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"there is no folder {folder}; give the one that holds the runs") from error
    except storage_errors() as error:
        raise UserError(f"cannot list {folder}: {error}; check the address and the credentials") from error
    paths = [entry.rstrip("/") for entry in entries if fs.exists(f"{entry.rstrip('/')}/{CONFIG}")]
    rows = []
    for path in paths:
        run = RunFolder(f"{prefix}{path}")
        try:
            set_straight(run)
            rows.append(row_of(run))
        finally:
            run.close()
    return sorted(rows, key=lambda row: row.age_s if row.age_s is not None else float("inf"))


def row_of(run: RunFolder) -> RunRow:
    """What a run's folder tells."""
    status, known = read_status(run), remembered(run)
    run.fetch(METRICS)
    rows = read_rows(run.base / METRICS)
    summary = run.read_json(SUMMARY)
    committed = committed_steps(run)
    done = max([rows[-1]["step"] + 1 if rows else 0, *committed])
    updated = max([status.get("updated", 0.0), rows[-1].get("time", 0.0) if rows else 0.0])
    losses = [row["loss"] for row in rows if row.get("loss") is not None]
    return RunRow(
        name=run.name,
        path=run.path,
        state=status.get("state", UNKNOWN),
        step=done,
        steps=status.get("steps") or summary.get("steps"),
        loss=losses[-1] if losses else None,
        best=_best(summary, losses),
        checkpoint_step=committed[-1] if committed else None,
        age_s=time.time() - updated if updated else None,
        error=status.get("error"),
        mlflow_run_id=known.get("run_id"),
        mlflow_closed=bool(known.get("closed")),
    )


def set_straight(run: RunFolder) -> None:
    """Brings the record of a run whose job is over to the truth; leaves one that is at work alone.

    A job that was killed outright could not say so: its state becomes killed, in MLflow too. Rows that MLflow
    missed are sent again from ``metrics.jsonl``.
    """
    status = read_status(run)
    holder = holder_of(run)
    if not status or (holder is not None and holder.alive):
        return
    try:
        if status["state"] == RUNNING:
            logger.warning("%s: its job ended without a word; it counts as killed", run.path)
            write_status(run, state=KILLED, error="the job's process ended without a word")
            status["state"] = KILLED
            deliver(run, KILLED)
        elif not remembered(run).get("closed", True):
            deliver(run, status["state"])
    except storage_errors() as error:
        logger.warning("%s: cannot be set straight (%s)", run.path, error)


def deliver(run: RunFolder, state: str) -> None:
    """Sends MLflow what it lacks of a run, and its final status."""
    known = remembered(run)
    if not known:
        return
    tracking = TrackingRun(
        uri=reveal(known["uri"]),
        experiment=known.get("experiment", "train"),
        name=run.name,
        params={},
        tags={"run.uid": known["uid"]} if known.get("uid") else {},
        run_id=known.get("run_id"),
    )
    run.fetch(METRICS)
    tracker = Tracker(tracking, run.local(UNSENT), read_rows(run.base / METRICS))
    unsent = tracker.close()
    tracking = tracker.run
    if tracking.run_id is not None:
        close_run(run, Ending(tracking, unsent=unsent), state)


def resumable(run: str) -> tuple[RunFolder, Config, str | None]:
    """The folder, the configuration and the store of a run that is to go on.

    Raises:
        UserError: there is no run, or it is at its end.
    """
    folder = RunFolder(run)
    try:
        values = load_yaml(folder.fs.cat_file(f"{folder.root}/{CONFIG}"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(
            f"there is no run at {folder.path}; `unigeoseg runs` lists those there are"
        ) from error
    set_straight(folder)
    return folder, Config.model_validate(values), read_status(folder).get("store")


def _best(summary: dict[str, Any], losses: list[float]) -> dict[str, Any] | None:
    scores = [values["gIoU"] for values in summary.get("tasks", {}).values() if "gIoU" in values]
    if scores:
        return {"name": "mean gIoU", "value": sum(scores) / len(scores)}
    return {"name": "loss", "value": min(losses)} if losses else None
