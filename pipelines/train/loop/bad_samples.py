"""A run's bad samples, gathered from all ranks: one list in the run folder, one verdict."""

from collections.abc import Sequence
from dataclasses import asdict

from pipelines.plan.plan import Plan
from pipelines.runs.folder import RunFolder
from pipelines.runs.ledger import StepLog, read_rows
from pipelines.stream.quarantine import BadSampleEvent, Quarantine
from pipelines.train.engine.engine import Engine

#: A row for each different bad sample, at the first step that met it.
QUARANTINE = "quarantine.jsonl"
#: Step, samples seen up to its end (all ranks), and this rank's bad samples in it.
Met = tuple[int, int, list[BadSampleEvent]]


class RunQuarantine:
    """Collects on every rank, judges alike on every rank, writes on rank 0.

    Steps after the checkpoint are replayed: their rows are cut off, and come again.

    Args:
        engine: for gathering.
        plan: of the run.
        run: where the list is.
        max_share: share of bad samples that stops the run.
        start_step: first step that is trained now.
    """

    def __init__(self, engine: Engine, plan: Plan, run: RunFolder, max_share: float, start_step: int) -> None:
        self._run, self._waiting, self._log = run, list[Met](), None
        before: list[dict[str, object]] = []
        if engine.rank == 0:
            run.fetch(QUARANTINE)
            self._log = StepLog(run.local(QUARANTINE), start_step)
            before = read_rows(run.local(QUARANTINE))
        total = sum(plan.units.samples(task) for task in range(3))
        self._judge = Quarantine(total, max_share, f"{run.path}/{QUARANTINE}")
        for row in engine.gather(before)[0]:
            self._judge.remember([BadSampleEvent(**{k: v for k, v in row.items() if k != "step"})])

    @property
    def count(self) -> int:
        """Different bad samples so far, of all ranks."""
        return sum(self._judge.reasons.values())

    def met(self, step: int, seen: int, events: list[BadSampleEvent]) -> None:
        """Takes note of a step of this rank."""
        if events:
            self._waiting.append((step, seen, events))

    def waiting(self) -> list[Met]:
        """What :meth:`take` has to get from every rank."""
        found, self._waiting = self._waiting, []
        return found

    def take(self, ranks: Sequence[list[Met]]) -> None:
        """Records and judges, step by step.

        Args:
            ranks: what all ranks had waiting, in rank order.

        Raises:
            UserError: on every rank, when there are more bad samples than allowed; all are listed.
        """
        for step, seen in sorted({(step, seen) for part in ranks for step, seen, _ in part}):
            events = [e for part in ranks for at, _, found in part if at == step for e in found]
            new = self._judge.remember(events)
            if self._log is not None:
                self._log.append({"step": step, **asdict(event)} for event in new)
            self._judge.judge(seen)

    def publish(self) -> None:
        """The list reaches the disk, or the object store."""
        if self._log is not None:
            self._log.sync()
            self._run.publish(QUARANTINE)

    def close(self) -> None:
        """Ends the list."""
        if self._log is not None:
            self.publish()
            self._log.close()
