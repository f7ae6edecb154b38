"""The driver of a training run: checks, Ray Train, evaluation, summary."""

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pipelines.cluster_view.session import ray_session
from pipelines.config import Config
from pipelines.models.initial import with_start
from pipelines.plan.plan import Plan
from pipelines.runs.folder import RunFolder
from pipelines.runs.observer import Observer
from pipelines.runs.status import recorded
from pipelines.storage.lease import Hold, held
from pipelines.storage.retry import Retry
from pipelines.store.index import StoreIndex
from pipelines.train.checkpoints.best import check_best
from pipelines.train.driver.fit import fit
from pipelines.train.driver.prepare import check_data, make_job, prepare_run
from pipelines.train.driver.summary import conclude
from pipelines.train.engine.deepspeed_config import accumulation_steps
from pipelines.train.loop.progress import Progress


def train(
    config: Config,
    store: str,
    run: str | Path,
    resume: bool = False,
    progress: bool = True,
    evaluate: bool = True,
    allow: Sequence[str] = (),
    observer: Observer | None = None,
) -> dict[str, Any]:
    """Trains on a Ray cluster (a local one if there is none), evaluates, and writes the run folder.

    Args:
        config: the job.
        store: folder or ``s3://`` prefix.
        run: run folder or ``s3://`` prefix.
        resume: go on with the run that is there.
        progress: shows a bar or lines on stderr.
        evaluate: fills ``tasks`` of the summary from the held-out split.
        allow: settings that may differ from those of the run that is resumed.
        observer: sees the rows, and may stop the run.

    Returns:
        The content of ``summary.json``.

    Raises:
        UserError: wrong input, found before training starts wherever that is possible.
        NonFiniteLossError: the loss was not finite; ``diagnostics/`` of the run holds the samples.
        RunStopped: ``observer`` stopped it.
    """
    started = time.time()
    config = with_start(config)
    folder = RunFolder(run, Retry(patience_s=config.checkpoint.patience_s))
    accumulation_steps(config, config.scale.workers)
    index = StoreIndex.open(store, config.data.split)
    if evaluate:
        StoreIndex.open(store, config.evaluation.split)
    check_best(config, store)
    plan = Plan.from_config(index, config)
    folder.check_writable()
    try:
        with held(folder, config.recovery.lease_seconds) as lease:
            folder.hold = Hold(folder, lease.token)
            check = partial(check_data, folder, store, index, plan)
            found = prepare_run(config, folder, resume, allow, check)
            with ray_session(config):
                job = replace(make_job(config, store, folder, index, plan, found), lease=lease.token)
                with recorded(folder, job, index.fingerprint, plan.steps) as ending:
                    shown = Progress(plan.steps, progress)
                    outcome = fit(job, shown, observer)
                    run_id = outcome.mlflow_run_id or job.tracking.run_id
                    ending.tracking = replace(job.tracking, run_id=run_id)
                    ending.unsent = outcome.unsent
                    totals = shown.totals.plain()
                    return conclude(folder, job, outcome, totals, ending, started, evaluate, progress)
    finally:
        folder.close()
