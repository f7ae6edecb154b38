"""A run as comparisons see it, from its folder or from MLflow alone."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pipelines.storage import is_remote
from pipelines.train.metrics import flat_metrics
from pipelines.train.mlflow_lookup import find_runs, open_client
from pipelines.train.run_folder import CHECKPOINTS, CONFIG, METRICS, SUMMARY, RunFolder
from pipelines.train.tracking import flatten
from unigeoseg.errors import UserError

Curve = list[tuple[int, float]]


@dataclass
class RunRecord:
    """One run.

    Attributes:
        name: of the run.
        source: its folder, or ``mlflow:<run id>``.
        state: FINISHED, RUNNING, ... as far as is known.
        params: flattened configuration.
        curves: metric name to (step, value); names as in MLflow.
        final: last value of each metric, those of the evaluation at the end included.
        checkpoints: names in the run folder, oldest first.
        checkpoint: the one of the end.
    """

    name: str
    source: str
    state: str
    params: Mapping[str, str]
    curves: dict[str, Curve]
    final: dict[str, float]
    checkpoints: list[str] = field(default_factory=list)
    checkpoint: str | None = None


def load_record(wanted: str, uri: str, runs: Path = Path("runs")) -> RunRecord:
    """A run by folder, by name under the runs folder, or by MLflow id or name.

    Raises:
        UserError: nothing of that name; says where it was looked for.
    """
    for candidate in (wanted, str(runs / wanted)):
        if is_remote(candidate) or Path(candidate).is_dir():
            folder = RunFolder(candidate)
            try:
                if folder.exists(CONFIG):
                    return folder_record(folder)
            finally:
                folder.close()
    found = find_runs(open_client(uri), wanted)
    if not found:
        raise UserError(
            f"no run {wanted}: no folder {wanted} or {runs / wanted}, and MLflow at {uri} has no run "
            "with that id or name; `unigeoseg compare --experiment train` shows what there is"
        )
    return mlflow_record(open_client(uri), found[0])


def folder_record(folder: RunFolder) -> RunRecord:
    """A run from its folder."""
    read = folder.fs.cat_file
    params = flatten(yaml.safe_load(read(f"{folder.root}/{CONFIG}")))
    curves: dict[str, Curve] = {}
    if folder.exists(METRICS):
        for line in read(f"{folder.root}/{METRICS}").decode().splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue  # a line that is being written
            for name, value in flat_metrics(row).items():
                curves.setdefault(name, []).append((row["step"], value))
    final = {name: curve[-1][1] for name, curve in curves.items()}
    state, checkpoint = "unfinished", None
    if folder.exists(SUMMARY):
        summary = json.loads(read(f"{folder.root}/{SUMMARY}"))
        final |= task_metrics(summary.get("tasks") or {})
        state, checkpoint = "FINISHED", summary.get("checkpoint")
    names = []
    if folder.exists(CHECKPOINTS):
        paths = folder.fs.ls(f"{folder.root}/{CHECKPOINTS}", detail=False)
        names = sorted(path.rstrip("/").rsplit("/", 1)[-1] for path in paths)
        names = [name for name in names if name.startswith("step-")]
    return RunRecord(folder.name, folder.path, state, params, curves, final, names, checkpoint)


def mlflow_record(client: Any, run: Any) -> RunRecord:
    """A run from MLflow."""
    curves = {
        name: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)]
        for name in run.data.metrics
    }
    name = run.info.run_name or run.info.run_id
    source = run.data.tags.get("run.folder", f"mlflow:{run.info.run_id}")
    return RunRecord(name, source, run.info.status, run.data.params, curves, dict(run.data.metrics))


def task_metrics(tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """A summary's tasks under the names that MLflow shows."""
    return {
        f"val/{task}/{name}".replace("@", "_"): float(value)
        for task, values in tasks.items()
        for name, value in values.items()
        if isinstance(value, int | float)
    }
