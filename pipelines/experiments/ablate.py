"""An ablation: every row of a table times every seed, as training runs; finished ones are not run again."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune

from pipelines.cluster_view.session import ray_session
from pipelines.config import Config
from pipelines.experiments.grid import Cell, Grid, cell_config
from pipelines.experiments.outcome import TrialProgress, failures
from pipelines.experiments.quickstart import prepare_store
from pipelines.experiments.session import (
    check_store,
    child_config,
    close_parent,
    open_parent,
    quiet_logs,
    trainable,
    trials_at_once,
)
from pipelines.experiments.table import ablation_table, write_table
from pipelines.experiments.trial import RUN, TrialPlan
from pipelines.runs.folder import CONFIG, SUMMARY, RunFolder
from pipelines.runs.status import read_status
from pipelines.storage.yaml_text import load_yaml
from pipelines.train.driver.prepare import check_same
from unigeoseg.errors import UserError

EXPERIMENT = "ablation"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class AblationRun:
    """One cell of the grid: a row with a seed."""

    cell: Cell
    seed: int

    @property
    def name(self) -> str:
        """Of its run folder."""
        return f"{self.cell.slug}-seed{self.seed}"

    def summary(self, folder: Path) -> dict[str, Any] | None:
        """Its result, once it is finished and evaluated."""
        path = folder / self.name / SUMMARY
        if not path.is_file():
            return None
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return content if content.get("tasks") else None


def ablation_runs(grid: Grid, config: Config, seeds: int) -> list[AblationRun]:
    """All runs of an ablation, seed by seed, so that an early end leaves whole tables.

    Raises:
        UserError: no seeds, or a row's values do not fit the preset.
    """
    if seeds < 1:
        raise UserError(f"--seeds {seeds}: give at least 1; 3 show the spread")
    runs = [AblationRun(cell, config.seed + i) for i in range(seeds) for cell in grid.cells]
    for run in runs:
        cell_config(config, run.cell, run.seed)
    return runs


def check_kept(runs: Sequence[AblationRun], config: Config, folder: Path, dataset: str | None) -> None:
    """Finished runs count only where they are those that would be run now.

    Args:
        runs: of the ablation.
        config: the preset.
        folder: where the runs lie.
        dataset: fingerprint of the store; ``None`` where it is not known yet.

    Raises:
        UserError: a finished run had another configuration or store.
    """
    for run in runs:
        place = RunFolder(folder / run.name)
        if run.summary(folder) is None:
            continue
        saved = load_yaml(place.fs.cat_file(f"{place.root}/{CONFIG}"))
        now = cell_config(config, run.cell, run.seed).shown()
        check_same(saved, now, place.path)
        before = read_status(place).get("dataset_fingerprint", dataset)
        other = dataset is not None and before != dataset
        if saved["evaluation"] != now["evaluation"] or other:
            what = "store" if other else "evaluation section"
            raise UserError(
                f"{place.path} is finished, with another {what}: its numbers do not belong in one table with "
                "new ones; give the same, or another --out"
            )


def run_ablation(
    grid: Grid,
    config: Config,
    store: str | None,
    folder: Path,
    seeds: int,
    concurrent: int | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Runs what is not finished yet, and writes the table.

    Args:
        grid: the table.
        config: the preset; its seed is the first of the seeds.
        store: to train and evaluate on; ``None`` builds the preset's synthetic one inside ``folder``.
        folder: a run folder for each cell, ``table.md``, ``.csv``, ``.json`` and ``.png``.
        seeds: runs of each row.
        concurrent: runs side by side; ``None``: as many as the cluster holds.
        progress: shows a line or bar for each finished run.

    Returns:
        The content of ``table.json``.

    Raises:
        UserError: wrong input, or no run could be finished (with the first error).
    """
    runs = ablation_runs(grid, config, seeds)
    if store is not None:
        check_store(store, config)  # before Ray is started for nothing
    folder.mkdir(parents=True, exist_ok=True)
    check_kept(runs, config, folder, None)  # before a store of other settings replaces that of these runs
    with ray_session(config):
        if store is None:
            store = str(folder / "store")
            prepare_store(config.build, store, progress)
        check_kept(runs, config, folder, check_store(store, config))
        parent = open_parent(folder, config, EXPERIMENT, {"ablation.table": str(grid.table)})
        child = child_config(config, parent, EXPERIMENT)
        status, errors = "FAILED", {}
        try:
            open_runs = [run for run in runs if run.summary(folder) is None]
            if len(open_runs) < len(runs):
                _LOG.info("%d of %d runs are finished already", len(runs) - len(open_runs), len(runs))
            if open_runs:
                errors = _run_all(
                    open_runs, TrialPlan(child, store, str(folder)), folder, concurrent, progress
                )
            result = ablation_table(grid, {run.name: run.summary(folder) for run in runs}, runs, errors)
            files = write_table(result, folder)
            status = "FINISHED" if not errors else "FAILED"
            close_parent(parent, status, _metrics(result), files)
        except (KeyboardInterrupt, SystemExit):
            close_parent(parent, "KILLED", {}, [])
            raise
        except BaseException:
            close_parent(parent, "FAILED", {}, [])
            raise
    return result


def _run_all(
    runs: list[AblationRun], plan: TrialPlan, folder: Path, concurrent: int | None, progress: bool
) -> dict[str, str]:
    """Trains them; returns name to error of those that failed."""
    quiet_logs()
    places = [{"name": run.name, "values": {**run.cell.values, "seed": run.seed}} for run in runs]
    at_once = trials_at_once(plan.config, concurrent, len(runs))
    watching = TrialProgress(len(runs), progress, lambda values: str(values[RUN]["name"]))
    tuner = tune.Tuner(
        trainable(plan),
        param_space={RUN: tune.grid_search(places)},
        tune_config=tune.TuneConfig(max_concurrent_trials=at_once),
        run_config=tune.RunConfig(
            name="tune", storage_path=str(folder.resolve()), callbacks=[watching], verbose=0
        ),
    )
    results = tuner.fit()
    watching.close()
    errors = failures(results, lambda values: str(values[RUN]["name"]))
    if len(errors) == len(runs) and not any(run.summary(folder) for run in runs):
        name, error = next(iter(errors.items()))
        raise UserError(f"no run could be finished; the first, {folder / name}: {error}")
    return errors


def _metrics(result: Mapping[str, Any]) -> dict[str, float]:
    found: dict[str, float] = {}
    for row in result["rows"]:
        for task, values in row["tasks"].items():
            if values["mean"] is not None:
                name = row["name"].replace("=", "-").replace("+", "-")
                found[f"ablation/{name}/{task}/gIoU"] = values["mean"]
    return found
