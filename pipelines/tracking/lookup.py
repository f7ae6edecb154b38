"""Finding MLflow: which server or database a command means, and runs in it by id or name."""

import os
from pathlib import Path
from typing import Any

from pipelines.storage.secrets import hide
from pipelines.tracking.tracker import default_uri, tracking_client
from unigeoseg.errors import UserError


def tracking_uri(given: str | None = None, runs: Path = Path("runs")) -> str:
    """As given, else ``MLFLOW_TRACKING_URI``, else the embedded database in the runs folder."""
    return given or os.environ.get("MLFLOW_TRACKING_URI") or default_uri(runs.resolve())


def open_client(uri: str) -> Any:
    """A client that has been seen to work.

    Raises:
        UserError: no database file there, or no server that answers.
    """
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        raise UserError(
            f"there is no MLflow database at {hide(uri)}; train something first, or give --tracking-uri "
            "(a server, or sqlite:////folder/mlflow.db) or MLFLOW_TRACKING_URI"
        )
    client = tracking_client(uri)
    try:
        client.search_experiments(max_results=1)
    except Exception as error:  # MLflow, its HTTP client and its database each raise their own kinds
        raise UserError(
            f"MLflow at {hide(uri)} does not answer ({hide(' '.join(str(error).split()))[:150]}); start it, "
            "or give another --tracking-uri"
        ) from error
    return client


def find_runs(client: Any, wanted: str) -> list[Any]:
    """MLflow runs with that id or name, newest first; in all experiments."""
    from mlflow.exceptions import MlflowException

    if len(wanted) == 32 and all(c in "0123456789abcdef" for c in wanted):
        try:
            return [client.get_run(wanted)]
        except MlflowException:
            return []
    experiments = [e.experiment_id for e in client.search_experiments()]
    if "'" in wanted or not experiments:
        return []
    found: list[Any] = client.search_runs(
        experiments, f"attributes.run_name = '{wanted}'", order_by=["attributes.start_time DESC"]
    )
    return found


def experiment_runs(client: Any, name: str) -> list[Any]:
    """All trainings of an experiment that have metrics, oldest first; parents of other runs are none.

    Raises:
        UserError: there is no such experiment, or it is empty.
    """
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        names = sorted(e.name for e in client.search_experiments())
        raise UserError(f"--experiment {name}: there is none; there are {', '.join(names) or 'none at all'}")
    runs = client.search_runs(
        [experiment.experiment_id], order_by=["attributes.start_time ASC"], max_results=1000
    )
    parents = {run.data.tags.get("mlflow.parentRunId") for run in runs}
    runs = [run for run in runs if run.data.metrics and run.info.run_id not in parents]
    if not runs:
        raise UserError(f"--experiment {name} has no run with metrics yet")
    return list(runs)
