"""``mlflow.json`` of a run folder: which MLflow run is its own, and whether that one is ended."""

from typing import Any, Final

from pipelines.runs.folder import RunFolder
from pipelines.storage.secrets import hide
from pipelines.tracking.tracker import UID, TrackingRun

MLFLOW: Final = "mlflow.json"


def remember_run(run: RunFolder, tracking: TrackingRun, closed: bool = False) -> None:
    """Keeps in ``mlflow.json`` of the run folder which MLflow run is its own, and if that one is ended."""
    content = {
        "uri": hide(tracking.uri),
        "experiment": tracking.experiment,
        "run_id": tracking.run_id,
        "uid": tracking.tags.get(UID),
        "closed": closed,
    }
    run.write_json(MLFLOW, content)


def remembered(run: RunFolder) -> dict[str, Any]:
    """The content of ``mlflow.json``, empty when there is none."""
    return run.read_json(MLFLOW)


def known_run_id(run: RunFolder, uri: str) -> str | None:
    """The MLflow run of an earlier start, if it went to the same place."""
    content = remembered(run)
    return content.get("run_id") if content.get("uri") == hide(uri) else None
