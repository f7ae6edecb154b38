"""A run as comparisons see it, from its folder or from MLflow alone."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.runs.folder import CONFIG, METRICS, SUMMARY, RunFolder
from pipelines.runs.ledger import parse_rows
from pipelines.runs.manifest import checkpoint_name, committed_steps
from pipelines.storage.filesystem import is_remote
from pipelines.storage.yaml_text import load_yaml
from pipelines.tracking.lookup import find_runs, open_client
from pipelines.tracking.metric_names import flat_metrics
from pipelines.tracking.tracker import flatten
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
    params = flatten(load_yaml(read(f"{folder.root}/{CONFIG}")))
    curves: dict[str, Curve] = {}
    if folder.exists(METRICS):
        for row in parse_rows(read(f"{folder.root}/{METRICS}")):
            for name, value in flat_metrics(row).items():
                curves.setdefault(name, []).append((row["step"], value))
    final = {name: curve[-1][1] for name, curve in curves.items()}
    state, checkpoint = "unfinished", None
    if summary := folder.read_json(SUMMARY):
        final |= task_metrics(summary.get("tasks") or {})
        state, checkpoint = "FINISHED", summary.get("checkpoint")
    names = _checkpoints(folder)
    return RunRecord(folder.name, folder.path, state, params, curves, final, names, checkpoint)


def _checkpoints(folder: RunFolder) -> list[str]:
    return [checkpoint_name(step).rsplit("/", 1)[-1] for step in committed_steps(folder)]


def mlflow_record(client: Any, run: Any) -> RunRecord:
    """A run from MLflow; its checkpoints where its folder can be seen from here."""
    curves = {
        name: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)]
        for name in run.data.metrics
    }
    name = run.info.run_name or run.info.run_id
    source = run.data.tags.get("run.folder")
    checkpoints = []
    if source and not is_remote(source) and Path(source).is_dir():
        checkpoints = _checkpoints(RunFolder(source))
    source = source or f"mlflow:{run.info.run_id}"
    final = dict(run.data.metrics)
    return RunRecord(name, source, run.info.status, run.data.params, curves, final, checkpoints)


def task_metrics(tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """A summary's tasks under the names that MLflow shows."""
    return {
        f"val/{task}/{name}".replace("@", "_"): float(value)
        for task, values in tasks.items()
        for name, value in values.items()
        if isinstance(value, int | float)
    }
