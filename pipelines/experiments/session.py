"""What ablations and sweeps share: the MLflow parent, Tune's settings, how many trials at once."""

import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray import tune

from pipelines.cluster_view.autoscaler import autoscaler_could
from pipelines.cluster_view.ray_private import keep_keys_out_of_trials
from pipelines.cluster_view.session import wanted_bundles, wanted_resources
from pipelines.config import Config
from pipelines.experiments.trial import TRIAL_RESOURCES, TrainTrial, TrialPlan
from pipelines.storage.secrets import hide, reveal
from pipelines.store.index import StoreIndex
from pipelines.tracking.tracker import (
    TrackingRun,
    default_uri,
    end_run,
    flatten,
    tracking_client,
    try_open_run,
)
from pipelines.train.driver.prepare import absolute
from unigeoseg.errors import UserError

PARENT = "mlflow.json"
_LOG = logging.getLogger(__name__)
_QUIET = ("ray.tune", "ray.train")


def check_store(store: str, config: Config) -> str:
    """Sees that a store has what training and evaluation need; its fingerprint.

    Raises:
        UserError: there is none, or one of the two splits is empty.
    """
    StoreIndex.open(store, config.evaluation.split)
    return StoreIndex.open(store, config.data.split).fingerprint


def open_parent(folder: Path, config: Config, experiment: str, tags: dict[str, str]) -> TrackingRun:
    """The MLflow run that the trials are children of; the same one again when the folder has one."""
    folder.mkdir(parents=True, exist_ok=True)
    uri = reveal(config.tracking.uri or "") or default_uri(folder.parent.resolve())
    artifacts = None if config.tracking.uri else (folder.parent.resolve() / "mlartifacts").as_uri()
    known = folder / PARENT
    run_id = None
    if known.is_file():
        saved = json.loads(known.read_text(encoding="utf-8"))
        run_id = saved["run_id"] if saved["uri"] == hide(uri) else None
    opened = try_open_run(
        TrackingRun(
            uri=uri,
            experiment=experiment,
            name=folder.name,
            params=flatten(config.shown()),
            tags={**tags, "run.folder": str(folder)},
            artifacts=artifacts,
            run_id=run_id,
        )
    )
    known.write_text(json.dumps({"uri": hide(uri), "run_id": opened.run_id}) + "\n", encoding="utf-8")
    return opened


def close_parent(parent: TrackingRun, status: str, metrics: dict[str, float], files: Sequence[Path]) -> None:
    """Ends it with the tables and pictures, and its children that nobody is left to end."""
    end_children(parent)
    end_run(parent, status, metrics, files)


def end_children(parent: TrackingRun) -> None:
    """Marks children that are still RUNNING as KILLED: Tune may end a trial before it says so itself."""
    if parent.run_id is None:
        return
    try:
        client = tracking_client(parent.uri)
        experiment = client.get_run(parent.run_id).info.experiment_id
        ours = f"tags.mlflow.parentRunId = '{parent.run_id}' and attributes.status = 'RUNNING'"
        for run in client.search_runs([experiment], ours):
            client.set_terminated(run.info.run_id, "KILLED")
    except Exception as error:  # MLflow, its HTTP client and its database each raise their own kinds
        _LOG.warning("MLflow at %s does not answer, its runs may stay RUNNING: %s", hide(parent.uri), error)


def child_config(config: Config, parent: TrackingRun, experiment: str) -> Config:
    """The configuration whose run is recorded as the parent's child."""
    tracking = replace_tracking(config, uri=parent.uri, experiment=experiment, parent=parent.run_id)
    return config.model_copy(update={"tracking": tracking})


def replace_tracking(config: Config, **values: Any) -> Any:
    """The tracking section with other values."""
    return config.tracking.model_copy(update=values)


def trainable(plan: TrialPlan) -> Any:
    """The trial class with what all trials share, and what a trial itself occupies."""
    keep_keys_out_of_trials()
    shared = replace(plan, store=absolute(plan.store), folder=absolute(plan.folder))
    factory = tune.PlacementGroupFactory([TRIAL_RESOURCES])
    return tune.with_resources(tune.with_parameters(TrainTrial, plan=shared), factory)


def trials_at_once(
    config: Config,
    asked: int | None,
    trials: int,
    could_grow: Callable[[list[dict[str, float]]], bool | None] = autoscaler_could,
) -> int:
    """How many trials run side by side: as asked, else as many as the cluster holds or can grow to.

    The others wait their turn: each that runs has a driver of its own, also while it waits for nodes.

    Args:
        config: of a trial.
        asked: by the user.
        trials: how many there are in all.
        could_grow: see :func:`pipelines.cluster_view.autoscaler.autoscaler_could`.

    Raises:
        UserError: ``asked`` is below one.
    """
    if asked is not None:
        if asked < 1:
            raise UserError(f"--concurrent {asked}: give at least 1")
        return asked
    there = ray.cluster_resources()
    now = min(int(there.get(name, 0) // need) for name, need in wanted_resources(config).items())
    fits, too_many = min(max(1, now), trials), trials + 1
    bundles = wanted_bundles(config)
    while too_many - fits > 1:  # the more trials, the less likely: a search by halves
        tried = (fits + too_many) // 2
        if could_grow(bundles * tried):
            fits = tried
        else:
            too_many = tried
    return fits


def quiet_logs() -> None:
    """Tune's and Train's own notes are for their developers; ours say the same in one line."""
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # its tables come whatever the verbosity
