"""``status.json``: what became of a run, for people and commands that come later."""

import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipelines.runs.folder import RunFolder
from pipelines.runs.job import Job
from pipelines.runs.mlflow_link import known_run_id, remember_run
from pipelines.runs.observer import RunStopped
from pipelines.storage.filesystem import storage_errors
from pipelines.storage.lease import LeaseLostError
from pipelines.storage.secrets import hide
from pipelines.tracking.tracker import TrackingRun, end_run

logger = logging.getLogger(__name__)
STATUS = "status.json"
RUNNING, FINISHED, FAILED, KILLED = "running", "finished", "failed", "killed"


def read_status(run: RunFolder) -> dict[str, Any]:
    """The content, empty when there is none."""
    return run.read_json(STATUS)


def write_status(run: RunFolder, **changes: Any) -> None:
    """Changes some keys of it.

    Raises:
        LeaseLostError: the run is another job's now.
    """
    run.check_held()
    if isinstance(changes.get("error"), str):
        changes["error"] = hide(changes["error"])
    run.write_json(STATUS, {**read_status(run), **changes, "updated": time.time()}, indent=2)


@dataclass
class Ending:
    """What the end of a run leaves in MLflow.

    Attributes:
        tracking: the run there.
        metrics: last ones.
        artifacts: files.
        unsent: logged rows that MLflow lacks.
    """

    tracking: TrackingRun
    metrics: dict[str, float] = field(default_factory=dict)
    artifacts: list[Path] = field(default_factory=list)
    unsent: int = 0


@contextmanager
def recorded(run: RunFolder, job: Job, dataset: str, steps: int) -> Iterator[Ending]:
    """Keeps ``status.json`` and MLflow's status true to what happens in the block.

    Args:
        run: the folder.
        job: its store is what ``unigeoseg resume`` trains on.
        dataset: the store's fingerprint.
        steps: of the whole run.
    """
    before = read_status(run)
    write_status(
        run,
        state=RUNNING,
        store=job.store,
        dataset_fingerprint=dataset,
        plan_fingerprint=job.plan_fingerprint,
        steps=steps,
        started=before.get("started", time.time()),
        attempts=before.get("attempts", 0) + 1,
        ended=None,
        error=None,
        host=socket.gethostname(),
        pid=os.getpid(),
    )
    ending, state, error = Ending(job.tracking), FAILED, None
    try:
        yield ending
        state = FINISHED
    except (KeyboardInterrupt, SystemExit, RunStopped):
        state = KILLED
        raise
    except BaseException as failure:
        error = " ".join(str(failure).split())[:500] or type(failure).__name__
        raise
    finally:
        try:
            close_run(run, ending, state)
            write_status(run, state=state, error=error, ended=time.time())
        except storage_errors():  # a full disk, storage out of reach: the lease tells that the job is over
            if state == FINISHED:
                raise
        except LeaseLostError as lost:  # what the run is said to be is another job's to say
            if state == FINISHED:
                raise
            logger.warning("%s", lost)


def close_run(run: RunFolder, ending: Ending, state: str) -> None:
    """Sets MLflow's status, and notes beside the run whether MLflow took it.

    Raises:
        LeaseLostError: the run is another job's now.
    """
    run.check_held()
    tracking = ending.tracking
    if tracking.run_id is None:
        tracking = replace(tracking, run_id=known_run_id(run, tracking.uri))
    taken = end_run(tracking, state.upper(), ending.metrics, ending.artifacts)
    remember_run(run, tracking, closed=taken and not ending.unsent)
