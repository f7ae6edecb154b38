"""How a training run begins, with Ray or without: checks, the folder held, the job, its record."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pipelines.config import Config
from pipelines.models.initial import with_start
from pipelines.plan.plan import Plan
from pipelines.runs.folder import RunFolder
from pipelines.runs.job import Job, Outcome
from pipelines.runs.manifest import Checkpoint
from pipelines.runs.status import Ending, recorded
from pipelines.storage.lease import Hold, held
from pipelines.storage.retry import Retry
from pipelines.store.index import StoreIndex
from pipelines.train.checkpoints.best import check_best
from pipelines.train.driver.prepare import check_data, check_profile, make_job, prepare_run
from pipelines.train.engine.compiling import check_backend


@dataclass(frozen=True)
class HeldRun:
    """A run that is checked and held.

    Attributes:
        config: of the job, with where it starts from.
        store: folder or ``s3://`` prefix.
        folder: of the run.
        index: the split that is trained on.
        plan: of the whole run.
        found: the checkpoint that it goes on from.
        lease: token of the hold.
    """

    config: Config
    store: str
    folder: RunFolder
    index: StoreIndex
    plan: Plan
    found: Checkpoint | None
    lease: str

    @contextmanager
    def recorded(self) -> Iterator[tuple[Job, Ending]]:
        """The job, and what its end leaves; ``status.json`` and MLflow tell how the block ends."""
        made = make_job(self.config, self.store, self.folder, self.index, self.plan, self.found)
        job = replace(made, lease=self.lease)
        with recorded(self.folder, job, self.index.fingerprint, self.plan.steps) as ending:
            yield job, ending


@contextmanager
def held_run(
    config: Config, store: str, run: str | Path, resume: bool, evaluate: bool, allow: Sequence[str]
) -> Iterator[HeldRun]:
    """Checks what can be checked before training, and holds the run's folder for as long as the block lasts.

    Args:
        config: the job.
        store: folder or ``s3://`` prefix.
        run: run folder or ``s3://`` prefix.
        resume: go on with the run that is there.
        evaluate: whether the held-out split will be needed.
        allow: settings that may differ from those of the run that is resumed.

    Raises:
        UserError: wrong input, or another job is at work there.
    """
    config = with_start(config)
    folder = RunFolder(run, Retry(patience_s=config.checkpoint.patience_s))
    try:
        index = StoreIndex.open(store, config.data.split)
        if evaluate:
            StoreIndex.open(store, config.evaluation.split)
        check_best(config, store)
        plan = Plan.from_config(index, config)
        check_profile(config, plan.steps)
        check_backend(config.train.compile_backend)
        folder.check_writable()
        with held(folder, config.recovery.lease_seconds) as lease:
            folder.hold = Hold(folder, lease.token)
            check = partial(check_data, folder, store, index, plan)
            found = prepare_run(config, folder, resume, allow, check)
            yield HeldRun(config, store, folder, index, plan, found, lease.token)
    finally:
        folder.close()


def note_outcome(ending: Ending, job: Job, outcome: Outcome) -> None:
    """Keeps which MLflow run the workers wrote to, and what it lacks."""
    run_id = outcome.mlflow_run_id or job.tracking.run_id
    ending.tracking, ending.unsent = replace(job.tracking, run_id=run_id), outcome.unsent
