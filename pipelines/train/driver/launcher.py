"""The driver of a training run: checks, Ray Train, evaluation, summary."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.cluster_view.session import ray_session
from pipelines.config import Config
from pipelines.runs.observer import Observer
from pipelines.train.driver.fit import fit
from pipelines.train.driver.start import held_run, note_outcome
from pipelines.train.driver.summary import conclude
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
    with (
        held_run(config, store, run, resume, evaluate, allow) as here,
        ray_session(here.config),
        here.recorded() as (job, ending),
    ):
        shown = Progress(here.plan.steps, progress)
        outcome = fit(job, shown, observer)
        note_outcome(ending, job, outcome)
        return conclude(here.folder, job, outcome, shown.totals, ending, started, evaluate, progress)
