"""Which checkpoint is the best so far, and whether training still gets better.

Every rank holds the same: it sees what an evaluation gave all of them, and its state goes into each
checkpoint, so that a resumed run knows which one must stay and how long nothing better came.
"""

from collections.abc import Mapping
from typing import Any

from pipelines.config import CheckpointConfig, Config
from pipelines.runs.folder import RunFolder
from pipelines.runs.manifest import checkpoint_name, committed_steps, read_checkpoint
from pipelines.store.index import StoreIndex
from unigeoseg.errors import UserError
from unigeoseg.tasks import TASK_IDS, TASKS


class Best:
    """Follows the values of one metric.

    Args:
        settings: which metric, and which way it is better.
        patience: measurements in a row without a better one after which it is exhausted; ``None``: never.
        state: from :meth:`state` of a run that goes on; one of another metric counts for nothing.

    Attributes:
        step: optimizer steps done at the best value; ``None`` before the first.
        value: the best value.
        measured: how many values there were.
        waited: how many of them came after the best.
    """

    def __init__(
        self, settings: CheckpointConfig, patience: int | None = None, state: Mapping[str, Any] | None = None
    ) -> None:
        self.metric, self._more = settings.best_by, settings.more_is_better
        self._kept, self._patience = settings.best_kept, patience
        known = state if state and state["metric"] == self.metric else {}
        self.step: int | None = known.get("step")
        self.value: float | None = known.get("value")
        self.measured: int = known.get("measured", 0)
        self.waited: int = known.get("waited", 0)

    def offer(self, step: int, metrics: Mapping[str, float]) -> bool:
        """Takes a measurement in; whether its checkpoint has to be kept as the best so far.

        Args:
            step: optimizer steps done.
            metrics: by name; without the metric that counts, nothing happens.
        """
        value = metrics.get(self.metric)
        if value is None:
            return False
        self.measured += 1
        # Of equal values the first stays: a later one would be no progress.
        if self.value is not None and (value <= self.value if self._more else value >= self.value):
            self.waited += 1
            return False
        self.step, self.value, self.waited = step, value, 0
        return self._kept > 0

    @property
    def exhausted(self) -> bool:
        """Whether patience is at its end."""
        return self._patience is not None and self.waited >= self._patience

    @property
    def why_stopped(self) -> str | None:
        """In words, why training ended early; ``None`` where it did not."""
        if not self.exhausted:
            return None
        return (
            f"no better {self.metric} than {self.value:.4f} of step {self.step} in {self.waited} evaluations"
        )

    def state(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {
            "metric": self.metric,
            "step": self.step,
            "value": self.value,
            "measured": self.measured,
            "waited": self.waited,
        }

    def kept(self) -> dict[str, Any] | None:
        """As ``summary.json`` has it; ``None`` where no best one is kept."""
        if not self._kept or self.step is None:
            return None
        return {
            "metric": self.metric,
            "value": self.value,
            "step": self.step,
            "checkpoint": checkpoint_name(self.step),
            "of": self.measured,
        }


def recalled(run: RunFolder, settings: CheckpointConfig, found: Mapping[str, Any]) -> dict[str, Any]:
    """What :class:`Best` goes on from: a checkpoint's own state, or the best that is still there.

    The second where the state is of another metric, or its best was not kept.

    Args:
        run: where the checkpoints are.
        settings: of the run as it goes on.
        found: content of ``state.json`` of the checkpoint that it goes on from.
    """
    known: dict[str, Any] = found.get("best") or {}
    there = committed_steps(run)
    if known.get("metric") == settings.best_by and known["step"] in (None, *there):
        return known
    best = Best(settings)
    for step in there:
        if step <= found["step"]:
            best.offer(step, read_checkpoint(run, step).state.get("metrics", {}))
    return {**best.state(), "waited": 0}  # what was measured between checkpoints is not known


def check_best(config: Config, store: str) -> None:
    """Refuses a metric that the store has no held-out samples for.

    Raises:
        UserError: names what is there.
    """
    name, split = config.checkpoint.best_by, config.evaluation.split
    if not config.checkpoint.by_evaluation:
        return
    try:
        counts = StoreIndex.open(store, split).counts()
    except UserError as error:
        raise UserError(f"checkpoint.best_by={name} needs held-out samples: {error}") from None
    task = name.split("/")[1]
    if task in TASK_IDS and not counts[TASK_IDS[task]]:
        there = [t for t, count in zip(TASKS, counts, strict=True) if count]
        raise UserError(
            f"checkpoint.best_by={name}: split {split!r} of {store} has no {task} sample, only "
            f"{' and '.join(there)}; use {name.replace(task, there[0])}"
        )
