"""Training without Ray: one plain process, or the ranks that ``torchrun`` started.

The same loop and engine; batches come from threads of the process. For measuring what Ray costs, for GPU
machines without a cluster, for notebooks.
"""

import os
from pathlib import Path
from typing import Any

import torch.distributed as dist

from pipelines.config import Config
from pipelines.plan.plan import Plan
from pipelines.store.index import StoreIndex
from pipelines.stream.plain import open_plain_stream
from pipelines.train.channel import Mailbox
from pipelines.train.distributed import ensure_process_group
from pipelines.train.job import Job, Outcome
from pipelines.train.loop import run_loop
from pipelines.train.prepare import make_job, prepare_run
from pipelines.train.progress import Progress
from pipelines.train.run_folder import RunFolder
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
    config: Config, store: str, run: str | Path, resume: bool = False, progress: bool = True
) -> Outcome:
    """Trains in this process; under ``torchrun``, every rank calls it.

    Args:
        config: ``scale.workers`` must be the number of processes.
        store: folder or ``s3://`` prefix.
        run: run folder or ``s3://`` prefix, the same for all ranks.
        resume: go on with the run that is there.
        progress: shows a bar or lines (rank 0).

    Raises:
        UserError: wrong input.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if config.scale.workers != world:
        raise UserError(
            f"scale.workers={config.scale.workers}, but {world} processes run; set scale.workers={world}"
        )
    made_here = ensure_process_group()
    try:
        return _train_rank(_shared_job(config, store, run, resume), progress)
    finally:
        if made_here and dist.is_initialized():
            dist.destroy_process_group()


def _shared_job(config: Config, store: str, run: str | Path, resume: bool) -> Job:
    """Rank 0 prepares the run; every rank gets the job, or the same error."""
    answer: list[Job | UserError | None] = [None]
    if dist.get_rank() == 0:
        try:
            answer = [_prepared(config, store, run, resume)]
        except UserError as error:
            answer = [error]
    dist.broadcast_object_list(answer, src=0)
    job = answer[0]
    if isinstance(job, UserError):
        raise job
    assert job is not None
    return job


def _train_rank(job: Job, progress: bool) -> Outcome:
    shown = Progress(1, False) if dist.get_rank() else Progress(job_steps(job), progress)
    try:
        outcome = run_loop(job, _Direct(shown), open_plain_stream)
    finally:
        shown.close()
    assert outcome is not None
    return outcome


def job_steps(job: Job) -> int:
    """Optimizer steps of a job."""
    return Plan.from_config(StoreIndex.open(job.store, job.config.data.split), job.config).steps


def _prepared(config: Config, store: str, run: str | Path, resume: bool) -> Job:
    folder = RunFolder(run)
    index = StoreIndex.open(store, config.data.split)
    plan = Plan.from_config(index, config)
    found = prepare_run(config, folder, resume)
    return make_job(config, store, folder, index, plan, found)
