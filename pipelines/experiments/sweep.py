"""A sweep: Ray Tune over training runs, with early stopping, children of one MLflow run, restorable."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune import ResultGrid
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from pipelines.cluster_view.session import ray_session
from pipelines.config import Config, with_values
from pipelines.experiments.begun import check_begun, described, write_begun
from pipelines.experiments.outcome import TrialProgress, last_line
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
from pipelines.experiments.space import Space
from pipelines.experiments.sweep_report import write_sweep
from pipelines.experiments.trial import COMPLETE, TrialPlan, nest
from pipelines.plan.plan import Plan
from pipelines.storage.yaml_text import dump_yaml
from pipelines.store.index import StoreIndex
from pipelines.tracking.tracker import TrackingRun
from unigeoseg.errors import UserError

EXPERIMENT = "sweep"
TUNE = "tune"
BEST = "best.yaml"


@dataclass(frozen=True)
class SweepSettings:
    """How a sweep searches.

    Attributes:
        trials: number of trials.
        search: ``random``, ``optuna`` (TPE), or ``grid`` (all of the space's grid_search values).
        scheduler: ``asha`` ends weak trials early, ``fifo`` lets all run to their end.
        grace: steps that every trial gets under ASHA; ``None``: a fifth of the run.
        reduction: ASHA keeps one in so many at each rung.
        concurrent: trials side by side; ``None``: as many as the cluster holds or can grow to.
    """

    trials: int = 8
    search: str = "random"
    scheduler: str = "asha"
    grace: int | None = None
    reduction: int = 3
    concurrent: int | None = None


def run_sweep(
    space: Space,
    config: Config,
    store: str | None,
    folder: Path,
    settings: SweepSettings,
    resume: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Runs a sweep, or goes on with one.

    Args:
        space: what is searched.
        config: the preset.
        store: to train and evaluate on; ``None`` builds the preset's synthetic one inside ``folder``.
        folder: run folders of the trials, ``tune/``, ``sweep.json``, ``.md``, ``.png`` and ``best.yaml``.
        settings: how to search.
        resume: restore what an earlier, interrupted sweep in ``folder`` has.
        progress: shows a line or bar for each trial.

    Returns:
        The content of ``sweep.json``.

    Raises:
        UserError: wrong input; the folder holds a sweep and ``resume`` is not set, or the other way round, or
            one that was begun with other settings; every trial failed.
    """
    _check_folder(folder, resume)
    facts = described(config, space, settings)
    dataset = check_store(store, config) if store is not None else None
    if resume:  # before Ray is started for nothing, and before a store of other settings replaces the sweep's
        check_begun(folder, facts, dataset)
    with ray_session(config):
        if store is None:
            store = str(folder / "store")
            prepare_store(config.build, store, progress)
        dataset = check_store(store, config)
        if resume:
            check_begun(folder, facts, dataset)
        else:
            write_begun(folder, facts, dataset)
        steps = Plan.from_config(StoreIndex.open(store, config.data.split), config).steps
        config = with_rungs(config, space.metric, steps)
        parent = open_parent(folder, config, EXPERIMENT, {"sweep.metric": space.metric})
        plan = TrialPlan(child_config(config, parent, EXPERIMENT), store, str(folder), space.metric)
        try:
            grid = _fit(plan, space, settings, folder, steps, resume, progress)
            result = sweep_result(grid, space, settings, steps)
            if result["best"] is None:
                failed = result["trials"][0]
                raise UserError(f"every trial failed; the first, {failed['name']}: {failed['error']}")
            (folder / BEST).write_text(best_preset(config, result), encoding="utf-8")
            files = write_sweep(result, folder)
        except (KeyboardInterrupt, SystemExit):
            close_parent(parent, "KILLED", {}, [])
            raise
        except BaseException:
            close_parent(parent, "FAILED", {}, [])
            raise
        _finish(parent, result, [*files, folder / BEST])
    return result


def _check_folder(folder: Path, resume: bool) -> None:
    held = (folder / TUNE).is_dir()
    if held and not resume:
        raise UserError(f"{folder} holds a sweep already: add --resume to go on with it, or choose --out")
    if resume and not held:
        raise UserError(f"there is no sweep to resume at {folder}; leave --resume out to start one")


def with_rungs(config: Config, metric: str, steps: int) -> Config:
    """A validation metric needs validation on the way: five times a run unless the preset has its own.

    Raises:
        UserError: the run cannot be evaluated on the way.
    """
    if metric.startswith("val/") and config.engine.zero_stage == 3:
        raise UserError(
            f"metric {metric} needs evaluation on the way, which engine.zero_stage=3 does not have; use "
            "engine.zero_stage=2, or a metric of training"
        )
    if not metric.startswith("val/") or config.evaluation.every is not None:
        return config
    return with_values(config, {"evaluation": {"every": max(1, math.ceil(steps / 5))}}, "the sweep")


def _fit(
    plan: TrialPlan,
    space: Space,
    settings: SweepSettings,
    folder: Path,
    steps: int,
    resume: bool,
    progress: bool,
) -> ResultGrid:
    quiet_logs()
    samples = 1 if settings.search == "grid" else settings.trials
    count = space.count(samples)
    watching = TrialProgress(count, progress)
    at_once = trials_at_once(plan.config, settings.concurrent, count)
    if resume:
        tuner = tune.Tuner.restore(
            str((folder / TUNE).resolve()),
            trainable=trainable(plan),
            resume_unfinished=True,
            resume_errored=True,
        )
    else:
        tuner = tune.Tuner(
            trainable(plan),
            param_space=space.for_tune(),
            tune_config=tune.TuneConfig(
                metric=space.metric,
                mode=space.mode,
                num_samples=samples,
                max_concurrent_trials=at_once,
                search_alg=_search(settings, plan.config.seed, at_once),
                scheduler=_scheduler(settings, steps),
            ),
            run_config=tune.RunConfig(
                name=TUNE, storage_path=str(folder.resolve()), callbacks=[watching], verbose=0
            ),
        )
    try:
        return tuner.fit()
    finally:
        watching.close()


def _search(settings: SweepSettings, seed: int, at_once: int) -> Searcher | Any:
    if settings.search == "optuna":
        import optuna
        from ray.tune.search.optuna import OptunaSearch

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        return OptunaSearch(seed=seed)
    from ray.tune.search.basic_variant import BasicVariantGenerator

    # Tune's own limit does not reach a generator that it is given.
    return BasicVariantGenerator(max_concurrent=at_once, random_state=seed)


def _scheduler(settings: SweepSettings, steps: int) -> TrialScheduler:
    if settings.scheduler == "fifo":
        return FIFOScheduler()
    # Beyond the run's length, so that the last rung does not end a trial before its evaluation.
    return ASHAScheduler(
        time_attr="step",
        max_t=10 * steps,
        grace_period=settings.grace or max(1, math.ceil(steps / 5)),
        reduction_factor=settings.reduction,
    )


def sweep_result(grid: ResultGrid, space: Space, settings: SweepSettings, steps: int) -> dict[str, Any]:
    """The content of ``sweep.json``: trials from best to worst, those that failed last."""
    trials = [_trial(result, space, steps) for result in grid]
    sign = -1.0 if space.mode == "max" else 1.0
    trials.sort(key=lambda t: (t["value"] is None, sign * (t["value"] or 0.0)))
    best = next((t for t in trials if t["state"] == "finished" and t["value"] is not None), None)
    return {
        "metric": space.metric,
        "mode": space.mode,
        "search": settings.search,
        "scheduler": settings.scheduler,
        "steps": steps,
        "best": best,
        "trials": trials,
    }


def _trial(result: Any, space: Space, steps: int) -> dict[str, Any]:
    metrics = result.metrics or {}
    state = "failed" if result.error else "finished" if metrics.get(COMPLETE) else "stopped early"
    frame = result.metrics_dataframe
    curve = []
    if frame is not None and space.metric in frame:
        rows = frame[["step", space.metric]].dropna()
        curve = [[int(step), float(value)] for step, value in rows.itertuples(index=False)]
    return {
        "name": f"trial-{metrics.get('trial_id', '')}",
        "state": state,
        "step": int(metrics.get("step", 0)),
        "value": float(metrics[space.metric]) if space.metric in metrics else None,
        "values": {key: value for key, value in (result.config or {}).items() if key in space.draws},
        "curve": curve,
        "error": last_line(str(result.error)) if result.error else None,
    }


def best_preset(config: Config, result: dict[str, Any]) -> str:
    """The best trial's configuration as a preset that ``train`` takes."""
    values = nest(result["best"]["values"])
    best = with_values(config, {**values, "name": f"{config.name}-best"}, "the best trial")
    head = (
        f"# The best of {len(result['trials'])} trials: {result['metric']} = {result['best']['value']:.4f} "
        f"({result['best']['name']}).\n"
    )
    return head + dump_yaml(best.shown())


def _finish(parent: TrackingRun, result: dict[str, Any], files: Sequence[Path]) -> None:
    close_parent(parent, "FINISHED", {f"best/{result['metric']}": result["best"]["value"]}, files)
