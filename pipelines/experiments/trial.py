"""A training run as a Ray Tune trial: each reported result is a logged row of the run.

The trial itself holds no CPU: it drives Ray Train, whose workers are placed as in any run. A trial that the
scheduler ends is told through its observer, so that workers, placement groups and MLflow run end properly.
"""

import queue
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ray import tune

from pipelines.config import Config, with_values
from pipelines.runs.folder import LEDGER, METRICS, SUMMARY, RunFolder
from pipelines.runs.ledger import read_rows
from pipelines.runs.observer import Observer, RunStopped
from pipelines.train.driver.launcher import train
from unigeoseg.tasks import TASKS

#: Key of a Tune configuration that names the run folder and holds nested values: ``{"name", "values"}``.
RUN = "run"
#: In a result: whether the run came to its own end (Tune's ``done`` is also set where a scheduler ends it).
COMPLETE = "complete"
#: A trial runs beside the head: it computes nothing itself.
TRIAL_RESOURCES = {"node:__internal_head__": 0.001}


@dataclass(frozen=True)
class TrialPlan:
    """What all trials of an experiment share.

    Attributes:
        config: the preset, with the MLflow experiment and parent of the children.
        store: folder or ``s3://`` prefix.
        folder: each trial's run folder lies in it.
        metric: only rows that have it are reported; the last report always comes.
    """

    config: Config
    store: str
    folder: str
    metric: str | None = None


class TrainTrial(tune.Trainable):
    """Runs one training; a step waits for its next row.

    The Tune configuration holds dotted keys of the configuration, or :data:`RUN`. A run folder that is there
    already is gone on with.
    """

    def setup(self, config: dict[str, Any], plan: TrialPlan | None = None) -> None:
        """Starts the training in a thread."""
        assert plan is not None
        self._plan = plan
        self._rows: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._observer = Observer(self._rows.put)
        self._error: BaseException | None = None
        self._summary: dict[str, Any] | None = None
        self._last: dict[str, Any] = {}
        self._folder, job = trial_run(plan, config, self.trial_id)
        self._thread = threading.Thread(
            target=self._train, args=(job, self._folder), name="training", daemon=True
        )
        self._thread.start()

    def _train(self, config: Config, folder: str) -> None:
        try:
            self._summary = finished_summary(folder) or train(
                config,
                self._plan.store,
                folder,
                resume=RunFolder(folder).exists(LEDGER),
                progress=False,
                observer=self._observer,
            )
        except RunStopped:
            pass
        except BaseException as error:  # told to Tune by the step that waits
            self._error = error
        finally:
            self._rows.put(None)

    def step(self) -> dict[str, Any]:
        """The next row, or the run's result with ``done``."""
        metric = self._plan.metric
        while (row := self._rows.get()) is not None:
            found = row_result(row)
            if metric is None or metric in found:
                self._last = found
                return {**found, COMPLETE: False, "done": False}
        if self._error is not None:
            raise self._error
        self._last = self._last or last_result(self._folder)  # none came where the run was finished before
        return {**self._last, **summary_result(self._summary or {}), COMPLETE: True, "done": True}

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        """Nothing to add: the run folder has its own checkpoints, and a restarted trial goes on there."""
        return {}

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Nothing to restore, see :meth:`save_checkpoint`."""

    def cleanup(self) -> None:
        """Called when the trial ends, also when the scheduler ends it early."""
        if self._thread.is_alive():
            self._observer.stop()
            self._thread.join(timeout=60)


def finished_summary(folder: str) -> dict[str, Any] | None:
    """The summary of a run that is finished and evaluated: Tune's own record of it may have been lost."""
    content = RunFolder(folder).read_json(SUMMARY)
    return content if content.get("tasks") else None


def last_result(folder: str) -> dict[str, Any]:
    """What the last metrics row of a run says."""
    rows = read_rows(RunFolder(folder).local(METRICS))
    return row_result(rows[-1]) if rows else {}


def trial_run(plan: TrialPlan, values: Mapping[str, Any], trial_id: str) -> tuple[str, Config]:
    """Run folder and configuration of a trial."""
    if RUN in values:
        name, nested = str(values[RUN]["name"]), dict(values[RUN]["values"])
    else:
        name, nested = f"trial-{trial_id}", nest(values)
    return f"{plan.folder}/{name}", with_values(plan.config, nested, f"trial {name}")


def nest(dotted: Mapping[str, Any]) -> dict[str, Any]:
    """``{"train.lr": 1}`` as ``{"train": {"lr": 1}}``."""
    result: dict[str, Any] = {}
    for key, value in dotted.items():
        *sections, last = key.split(".")
        place = result
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    return result


def row_result(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a metrics row says to the scheduler: ``step``, ``loss``, and where it has them ``val/...``."""
    result: dict[str, Any] = {"step": row["step"] + 1, "loss": row["loss"]}
    return result | validation_result(row.get("val") or {})


def summary_result(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The same of a finished run's summary: its evaluation counts as the last validation."""
    result = validation_result(summary.get("tasks") or {})
    return result | ({"step": summary["steps"]} if "steps" in summary else {})


def validation_result(tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """``val/<task>/gIoU`` and cIoU of each task, and their means over tasks as ``val/gIoU``, ``val/cIoU``."""
    found: dict[str, float] = {}
    for name in ("gIoU", "cIoU"):
        values = {t: float(tasks[t][name]) for t in TASKS if t in tasks and name in tasks[t]}
        found |= {f"val/{task}/{name}": value for task, value in values.items()}
        if values:
            found[f"val/{name}"] = sum(values.values()) / len(values)
    return found
