"""What a run leaves behind step by step: ledger, metrics, progress, MLflow. One object a rank.

Sample ids and times of all ranks are gathered once a logged step, not each step, and before each checkpoint:
a step after the last checkpoint is replayed anyway.
"""

import logging
from dataclasses import replace
from typing import Any

from pipelines.models.mfu import Utilisation
from pipelines.plan.plan import Plan
from pipelines.runs.folder import LEDGER, METRICS, RunFolder
from pipelines.runs.job import Job
from pipelines.runs.ledger import StepLog, read_rows
from pipelines.runs.mlflow_link import known_run_id, remember_run
from pipelines.storage.lease import LeaseLostError
from pipelines.stream.quarantine import BadSampleEvent
from pipelines.tracking.tracker import UNSENT, Tracker
from pipelines.train.checkpoints.writer import SaveReport
from pipelines.train.engine.compiling import compilations
from pipelines.train.engine.engine import Engine
from pipelines.train.engine.step import StepResult
from pipelines.train.loop.bad_samples import RunQuarantine
from pipelines.train.loop.channel import Channel
from pipelines.train.loop.machines import slowest
from pipelines.train.loop.metrics import (
    WARMUP_STEPS,
    RankReport,
    Window,
    memory_now,
    memory_shares,
    metrics_row,
)
from pipelines.train.loop.progress import describe
from pipelines.train.loop.skipping import Skipping
from pipelines.train.loop.validation import Measured
from unigeoseg.tasks import TASKS

logger = logging.getLogger(__name__)


class Recorder:
    """Collects on every rank; writes on rank 0.

    Args:
        job: the run.
        engine: for gathering.
        plan: for positions and target shares.
        run: where the files are.
        channel: to the driver.
        start_step: rows of this step and later are replaced.
        samples_seen: instructions in the steps before.
        skipping: counts the steps that were left out.

    Attributes:
        checkpoint: what the newest checkpoint cost, for the next row.
    """

    def __init__(
        self,
        job: Job,
        engine: Engine,
        plan: Plan,
        run: RunFolder,
        channel: Channel,
        start_step: int,
        samples_seen: int,
        skipping: Skipping,
    ) -> None:
        self._job, self._engine, self._plan, self._run, self._channel = job, engine, plan, run, channel
        self.samples_seen, self._skipping = samples_seen, skipping
        self._samples = sum(plan.units.samples(task) for task in range(len(TASKS)))
        self._steps_here = 0
        self._ids: dict[int, list[str]] = {}
        self._window, self._report = Window(), RankReport()
        self._mfu = Utilisation(job.config, engine.world)
        self.quarantine = RunQuarantine(engine, plan, run, job.config.data.max_bad_share, start_step)
        self.tracker: Tracker | None = None
        self.checkpoint: SaveReport | None = None
        if engine.rank == 0:
            for name in (LEDGER, METRICS):
                run.fetch(name)
            self._ledger = StepLog(run.local(LEDGER), start_step)
            self._metrics = StepLog(run.local(METRICS), start_step)
            tracking = job.tracking
            if tracking.run_id is None:  # a worker before this one may have opened it
                tracking = replace(tracking, run_id=known_run_id(run, tracking.uri))
            rows = read_rows(run.local(METRICS))
            self.tracker = Tracker(tracking, run.local(UNSENT), rows, lambda r: remember_run(run, r))

    def step(
        self,
        result: StepResult,
        sample_ids: list[str],
        wall: float,
        retries: int,
        events: list[BadSampleEvent],
        measured: Measured | None = None,
    ) -> None:
        """Takes a step in; writes at every ``train.log_every``-th, at the last, and at a measured one.

        It is a collective call then. ``retries`` counts this rank's repeated reads so far; ``measured`` is an
        evaluation made after this step.
        """
        self._ids[result.step] = sample_ids
        self.samples_seen += result.instructions
        self.quarantine.met(result.step, self.samples_seen, events)
        self._steps_here += 1
        self._window.add(result, wall, warm=self._steps_here > WARMUP_STEPS)
        self._report.add(result.seconds)
        every, last = self._job.config.train.log_every, self._plan.steps - 1
        if result.step % every and result.step != last and measured is None:
            return
        self._report.memory, self._report.memory_share = memory_now(), memory_shares()
        self._report.retries = retries
        reports = self.flush()
        if self._engine.rank == 0:
            row = metrics_row(result, self._window, reports, self._facts(result))
            window = self._window
            mfu = self._mfu(window.images, window.instructions, window.tokens, window.wall)
            if mfu is not None:
                row["rates"]["mfu"] = mfu
            if self.checkpoint is not None:
                row["checkpoint"], self.checkpoint = self.checkpoint.plain(), None
            if measured is not None:
                row |= measured
            if self._job.config.train.compile:
                row["compiled"] = compilations()
            if (slow := slowest(reports)) is not None:
                row["slowest"] = slow
            self._run.check_held()
            self._metrics.append([row])
            self._channel.post("row", row)
            logger.info("%s", describe(row))
            assert self.tracker is not None
            self.tracker.log(row)
        self._window, self._report = Window(), RankReport()

    def follow(self, plan: Plan) -> None:
        """Takes another plan for the steps to come: the same run's, with shares chosen since."""
        self._plan = plan

    def flush(self) -> list[RankReport]:
        """Brings the ledger up to the last step; a collective call. Returns all ranks' reports."""
        gathered = self._engine.gather((self._ids, self._report, self.quarantine.waiting()))
        self._ids = {}
        if self._engine.rank == 0:
            self._run.check_held()
            steps = sorted(gathered[0][0])
            self._ledger.append(
                {
                    "step": step,
                    "position": step * self._plan.batch_size,
                    "sample_ids": [name for ids, _, _ in gathered for name in ids[step]],
                }
                for step in steps
            )
        self.quarantine.take([met for _, _, met in gathered])
        return [report for _, report, _ in gathered]

    def publish(self) -> None:
        """Brings the records so far to the disk and the object store; on rank 0, beside training."""
        self._ledger.sync()
        self._metrics.sync()
        self._run.publish_growing(LEDGER, METRICS)
        self.quarantine.publish()

    def close(self) -> int:
        """Ends the records; returns the number of rows that MLflow does not have."""
        if self._engine.rank:
            return 0
        try:
            self._run.check_held()
        except LeaseLostError:  # why training ends; files and MLflow's run are another job's now
            self._ledger.close()
            self._metrics.close()
            assert self.tracker is not None
            self.tracker.abandon()
            return 0
        self.quarantine.close()
        self._ledger.close()
        self._metrics.close()
        assert self.tracker is not None
        unsent = self.tracker.close()
        self._run.publish(LEDGER, METRICS, UNSENT)
        return unsent

    def _facts(self, result: StepResult) -> dict[str, Any]:
        position = result.step * self._plan.batch_size
        target = self._plan.share_at(position)
        return {
            "position": position,
            "epoch": self.samples_seen / self._samples,
            "progress": (result.step + 1) / self._plan.steps,
            "samples_seen": self.samples_seen,
            "quarantined": self.quarantine.count,
            "skipped_steps": self._skipping.count,
            "world_size": self._engine.world,
            "target_shares": {task: float(target[i]) for i, task in enumerate(TASKS)},
        }
