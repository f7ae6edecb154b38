"""MLflow, so that training never waits for it and never dies of it.

The driver opens the run; rank 0 hands rows to a thread that sends them in batches. What cannot be sent stays
in the buffer and is tried again; at the end the rest is saved beside the run as ``mlflow_unsent.jsonl``.
After a restart the thread asks MLflow for the last step it has and sends the rows of ``metrics.jsonl`` that
come after it, so that the step axis has no gap and no double.
"""

import json
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.storage.secrets import hide
from pipelines.tracking.metric_names import flat_metrics

# MLflow's own defaults retry for minutes inside one call; this thread has its own patience.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")

logger = logging.getLogger(__name__)
UNSENT = "mlflow_unsent.jsonl"
#: The tag by which a run is found again when its number was lost on the way.
UID = "run.uid"
_BATCH, _PARAMS, _VALUE = 1000, 100, 6000
_LONGEST_PAUSE = 30.0
_MARK = "train/loss"


@dataclass(frozen=True)
class TrackingRun:
    """One MLflow run; all that is needed to open it or to write to it.

    Attributes:
        uri: of the server or database.
        experiment: its name.
        name: the run's.
        params: the flattened configuration.
        tags: commit, fingerprints and the like.
        artifacts: where a new experiment keeps files; ``None`` leaves it to the server.
        run_id: once it is open.
    """

    uri: str
    experiment: str
    name: str
    params: dict[str, str]
    tags: dict[str, str]
    artifacts: str | None = None
    run_id: str | None = None


def open_run(run: TrackingRun) -> TrackingRun:
    """Opens the run, or re-attaches to ``run.run_id``; raises whatever MLflow raises."""
    from mlflow.entities import Param, RunTag

    client = tracking_client(run.uri)
    run_id = run.run_id
    known: dict[str, str] = {}
    if run_id is None:
        found = client.get_experiment_by_name(run.experiment)
        experiment = found.experiment_id if found else client.create_experiment(run.experiment, run.artifacts)
        uid = run.tags.get(UID, "")
        # An answer may have been lost on the way: then the run is there already.
        there = client.search_runs([experiment], f"tags.`{UID}` = '{uid}'", max_results=1) if uid else []
        if there:
            run_id, known = there[0].info.run_id, there[0].data.params
        else:
            tags = {UID: uid} if uid else None
            run_id = client.create_run(experiment, run_name=run.name, tags=tags).info.run_id
    else:
        known = client.get_run(run_id).data.params
        client.update_run(run_id, status="RUNNING")
    params = [Param(k, v[:_VALUE]) for k, v in run.params.items() if k not in known]
    for begin in range(0, len(params), _PARAMS):
        client.log_batch(run_id, params=params[begin : begin + _PARAMS])
    client.log_batch(run_id, tags=[RunTag(k, v) for k, v in run.tags.items()])
    return replace(run, run_id=run_id)


def try_open_run(run: TrackingRun) -> TrackingRun:
    """As :func:`open_run`; if MLflow is out of reach, says so and returns the run unopened."""
    try:
        return open_run(run)
    except Exception as error:  # MLflow, its HTTP client and its database each raise their own kinds
        logger.warning(
            "MLflow at %s is out of reach (%s); training goes on, metrics are kept and sent later",
            hide(run.uri),
            _short(error),
        )
        return run


def end_run(
    run: TrackingRun, status: str, metrics: dict[str, float] | None = None, artifacts: Sequence[Path] = ()
) -> bool:
    """Sets the final status (FINISHED, FAILED or KILLED) and adds last metrics and files; never raises.

    Returns:
        Whether MLflow took all of it.
    """
    if run.run_id is None:
        return False
    try:
        client = tracking_client(run.uri)
        # The status first: whatever fails after it, no run is left RUNNING.
        client.set_terminated(run.run_id, status)
        for name, value in (metrics or {}).items():
            client.log_metric(run.run_id, name, value)
        for path in artifacts:
            if path.exists():
                client.log_artifact(run.run_id, str(path))
    except Exception as error:
        logger.warning(
            "MLflow did not take the end of run %s (%s); `unigeoseg runs` delivers it when MLflow is back",
            run.run_id,
            _short(error),
        )
        return False
    return True


class Tracker:
    """Sends rows to MLflow from a thread of its own.

    Args:
        run: opened, or not yet (the thread then opens it).
        unsent: file that keeps what could not be sent.
        rows: of earlier, from ``metrics.jsonl``; those that MLflow lacks are sent first.
        opened: called by the thread when it has opened the run.
    """

    def __init__(
        self,
        run: TrackingRun,
        unsent: Path,
        rows: Sequence[dict[str, Any]] = (),
        opened: Callable[[TrackingRun], None] | None = None,
    ) -> None:
        self._run, self._unsent, self._opened = run, unsent, opened
        self._rows: deque[dict[str, Any]] = deque(rows)
        #: Last step that MLflow has; None until it was asked.
        self._last: int | None = None
        self._closing = threading.Event()
        self._wake = threading.Event()
        self._wake.set()
        self._warned, self._attempts = False, 0
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()

    @property
    def run(self) -> TrackingRun:
        """The run, with its number once it is open."""
        return self._run

    @property
    def run_id(self) -> str | None:
        """The run's id once it is known."""
        return self._run.run_id

    def log(self, row: dict[str, Any]) -> None:
        """Takes a row; returns at once."""
        self._rows.append(row)
        self._wake.set()

    def close(self, timeout: float = 15.0) -> int:
        """Sends what is left, saves the rest when ``timeout`` seconds bring nothing more to MLflow.

        A request that is under way may be one to a server that is just back: where it fails, another follows.

        Returns:
            Number of rows that MLflow does not have.
        """
        self._closing.set()
        self._wake.set()
        before = None
        while self._thread.is_alive() and before != (now := (len(self._rows), self._attempts)):
            before = now
            self._thread.join(timeout)
        left = list(self._rows)
        if left:
            with self._unsent.open("w", encoding="utf-8") as file:
                file.writelines(json.dumps({"run_id": self.run_id, **row}) + "\n" for row in left)
            logger.warning(
                "%d logged steps could not be sent to MLflow at %s; they are in %s and in metrics.jsonl",
                len(left),
                hide(self._run.uri),
                self._unsent,
            )
        elif self._unsent.exists():
            self._unsent.unlink()
        return len(left)

    def abandon(self) -> None:
        """Sends nothing more and keeps nothing: the run is another job's."""
        self._rows.clear()
        self._closing.set()
        self._wake.set()

    def _work(self) -> None:
        pause = 1.0
        while True:
            self._wake.wait()
            self._wake.clear()
            last_one = self._closing.is_set()
            self._attempts += 1
            try:
                self._send_all()
                pause, self._warned = 1.0, False
            except Exception as error:
                if not self._warned:
                    logger.warning("MLflow does not answer (%s); metrics are kept for later", _short(error))
                    self._warned = True
                if last_one:
                    return
                self._closing.wait(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                self._wake.set()
                continue
            if self._closing.is_set() and not self._rows:
                return

    def _send_all(self) -> None:
        if self._run.run_id is None:
            self._run = open_run(self._run)
            if self._opened is not None:
                self._opened(self._run)
        client = tracking_client(self._run.uri)
        if self._last is None:
            history = client.get_metric_history(self._run.run_id, _MARK)
            self._last = max((metric.step for metric in history), default=-1)
        while self._rows:
            metrics, taken, last = _batch_of(list(self._rows), self._last)
            if metrics:
                client.log_batch(self._run.run_id, metrics=metrics)
            self._last = last
            for _ in range(taken):
                self._rows.popleft()


def _batch_of(rows: list[dict[str, Any]], last: int) -> tuple[list[Any], int, int]:
    """Metrics of as many rows as one request takes, how many rows that are, and the last step among them.

    Rows up to step ``last`` are passed over: a replayed step has the values that MLflow has already.
    """
    from mlflow.entities import Metric

    metrics: list[Any] = []
    taken = 0
    for row in rows:
        if row["step"] > last:
            stamp = int(row["time"] * 1000)
            added = [Metric(name, value, stamp, row["step"]) for name, value in flat_metrics(row).items()]
            if metrics and len(metrics) + len(added) > _BATCH:
                break
            metrics += added
            last = row["step"]
        taken += 1
    return metrics, taken, last


def default_uri(runs: Path) -> str:
    """The embedded database in the runs folder."""
    return f"sqlite:///{runs / 'mlflow.db'}"


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """A nested configuration as dotted keys with values in text, without passwords in URIs."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = hide(value) if isinstance(value, str) else hide(json.dumps(value))
    return flat


def tracking_client(uri: str) -> Any:
    """MLflow's client of a server or database, its own logs kept quiet."""
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=uri)


def _short(error: BaseException) -> str:
    return hide(" ".join(str(error).split()))[:200] or type(error).__name__
