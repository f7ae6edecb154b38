"""Training without Ray: one plain process, or the ranks that ``torchrun`` started.

The same loop and engine; batches come from threads of the process. For measuring what Ray costs, for GPU
machines without a cluster, for notebooks.
"""

import logging
import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch.distributed as dist

from pipelines.config import Config
from pipelines.plan.plan import Plan
from pipelines.runs.folder import RunFolder
from pipelines.runs.job import Job, Outcome
from pipelines.runs.status import Ending
from pipelines.store.index import StoreIndex
from pipelines.stream.plain import open_plain_stream
from pipelines.train.driver.start import held_run, note_outcome
from pipelines.train.driver.summary import conclude
from pipelines.train.engine.distributed import ensure_process_group, leave_process_group
from pipelines.train.engine.health import UnfitNodeError
from pipelines.train.loop import recorder
from pipelines.train.loop.advice import Totals
from pipelines.train.loop.channel import Mailbox
from pipelines.train.loop.loop import run_loop
from pipelines.train.loop.progress import Progress
from unigeoseg.errors import UserError


class _Direct(Mailbox):
    """Hands messages to the progress display at once."""

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self._progress = progress

    def post(self, kind: str, content: dict[str, Any]) -> None:
        """Shows a message."""
        self._progress.handle(kind, content)


def train_plain(
    config: Config,
    store: str,
    run: str | Path,
    resume: bool = False,
    progress: bool = True,
    evaluate: bool = False,
    allow: Sequence[str] = (),
) -> dict[str, Any] | None:
    """Trains in this process; under ``torchrun``, every rank calls it.

    Args:
        config: ``scale.workers`` must be the number of processes.
        store: folder or ``s3://`` prefix.
        run: run folder or ``s3://`` prefix, the same for all ranks.
        resume: go on with the run that is there.
        progress: shows a bar or lines (rank 0).
        evaluate: rank 0 evaluates the export on the held-out split.
        allow: settings that may differ from those of the run that is resumed.

    Returns:
        The content of ``summary.json`` on rank 0, ``None`` on the others.

    Raises:
        UserError: wrong input.
        SystemExit: SIGTERM came; there is a checkpoint of the last step.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if config.scale.workers != world:
        raise UserError(
            f"scale.workers={config.scale.workers}, but {world} processes run; set scale.workers={world}"
        )
    started = time.time()
    made_here = ensure_process_group()
    try:
        with ExitStack() as stack:
            job, own = _shared_job(config, store, run, resume, allow, evaluate, stack)
            outcome, totals = _train_rank(job, progress)
            if own is None:
                return None
            folder, ending = own
            note_outcome(ending, job, outcome)
            return conclude(folder, job, outcome, totals, ending, started, evaluate, progress)
    finally:
        if made_here:
            leave_process_group()


def _shared_job(
    config: Config, store: str, run: str | Path, resume: bool, allow: Sequence[str], evaluate: bool,
    stack: ExitStack,
) -> tuple[Job, tuple[RunFolder, Ending] | None]:  # fmt: skip
    """Rank 0 prepares the run and holds it as long as ``stack``; every rank gets the job, or the error.

    Rank 0 also gets the run's folder, and what is noted at its end.
    """
    answer: list[Job | UserError | None] = [None]
    own = None
    if dist.get_rank() == 0:
        try:
            here = stack.enter_context(held_run(config, store, run, resume, evaluate, allow))
            prepared, ending = stack.enter_context(here.recorded())
            answer, own = [prepared], (here.folder, ending)
        except UserError as error:
            answer = [error]
    dist.broadcast_object_list(answer, src=0)
    job = answer[0]
    if isinstance(job, UserError):
        raise job
    assert job is not None
    return job, own


def _train_rank(job: Job, progress: bool) -> tuple[Outcome, Totals]:
    """How it went, and the sums over the logged rows (rank 0's)."""
    shown = Progress(1, False) if dist.get_rank() else Progress(job_steps(job), progress)
    if progress:  # the same lines stand there already
        logging.getLogger(recorder.__name__).setLevel(logging.WARNING)
    try:
        outcome = run_loop(job, _Direct(shown), open_plain_stream, catch_sigterm=True)
    except UnfitNodeError as error:
        raise UserError(
            f"{error}; train without that machine, or with recovery.check_nodes=false if it is sound"
        ) from error
    finally:
        shown.close()
    assert outcome is not None
    return outcome, shown.totals


def job_steps(job: Job) -> int:
    """Optimizer steps of a job."""
    return Plan.from_config(StoreIndex.open(job.store, job.config.data.split), job.config).steps
