"""The record of an adaptive schedule as a run makes it: losses in, the next segment's shares out.

Every rank holds the same one, because a step's losses are the sums over all ranks. What it knows goes into
each checkpoint, so a resumed run follows what was chosen before it.
"""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from pipelines.config import Config
from pipelines.plan.plan import Plan
from pipelines.plan.schedule import base_shares, first_segments, segment_of
from pipelines.plan.units import PlanIndex
from pipelines.storage.yaml_text import dump_yaml
from pipelines.train.engine.step import StepResult
from unigeoseg.schedules.adaptive import adapted_shares, learning_progress
from unigeoseg.tasks import TASKS


class AdaptiveShares:
    """Collects what a segment shows, and chooses the next.

    Args:
        config: of the run; ``pts.schedule`` is ``adaptive``.
        index: of its split.
        state: from :meth:`state`, of a checkpoint; ``None`` at the start.

    Attributes:
        segments: positions of each task, segment by segment.
        progress: learning progress of each task in the segment that ended last.
    """

    def __init__(self, config: Config, index: PlanIndex, state: dict[str, Any] | None = None) -> None:
        self._config, self._index = config, index
        self._pool = Plan.from_config(index, config).pool
        self._base = [float(s) for s in base_shares(config.pts, self._pool.index.counts())]
        self.progress: list[float | None] = [None] * len(TASKS)
        if state is None:
            self.segments = first_segments(config, self._pool)
            self._shares = list(self._base)
            self._halves = _empty_halves()
        else:
            self.segments = [(s[0], s[1], s[2]) for s in state["segments"]]
            self._shares, self._halves = list(state["shares"]), deepcopy(state["halves"])

    @property
    def end(self) -> int:
        """Step at which the newest segment ends."""
        return sum(map(sum, self.segments)) // self._config.train.global_batch

    @property
    def config(self) -> Config:
        """The run's configuration with what was chosen so far as a recorded schedule."""
        values = self._config.plain()
        values["pts"] |= {"schedule": "recorded", "record": [list(s) for s in self.segments], "warmup": []}
        return Config.model_validate(values)

    def plan(self) -> Plan:
        """The plan as far as it is chosen; the newest shares hold beyond."""
        return Plan.recorded(self._index, self._config, self.segments)

    def replay(self) -> str:
        """A preset that repeats this run's plan, as YAML."""
        return dump_yaml(self.config.shown())

    def add(self, result: StepResult) -> None:
        """Takes the losses of a step in; one that was left out counts for nothing."""
        if not result.finite:
            return
        begin = self.end - sum(self.segments[-1]) // self._config.train.global_batch
        half = int(2 * (result.step - begin) >= self.end - begin)
        for t, task in enumerate(TASKS):
            self._halves[half][t][0] += result.task_sums[task]
            self._halves[half][t][1] += result.task_counts[task]

    def extend(self, steps: int) -> None:
        """Chooses the shares of the next segment, from the one that ended; ``steps`` are left of the run."""
        settings = self._config.pts.adaptive
        self.progress = [
            learning_progress(_mean(self._halves[0][t]), _mean(self._halves[1][t])) for t in range(len(TASKS))
        ]
        chosen = adapted_shares(
            self._base, self._shares, self.progress, settings.low, settings.high, settings.smoothing
        )
        length = min(settings.segment_steps, steps) * self._config.train.global_batch
        self.segments.append(segment_of(chosen, length, self._pool))
        self._shares, self._halves = list(chosen), _empty_halves()

    def describe(self) -> str:
        """The newest choice in a line, for people."""
        parts = []
        for task, share, progress in zip(TASKS, self._shares, self.progress, strict=True):
            measured = "not measured" if progress is None else f"loss fell {100 * progress:.1f} %"
            parts.append(f"{task} {share / sum(self._shares):.2f} ({measured})")
        begin = self.end - sum(self.segments[-1]) // self._config.train.global_batch
        return f"shares of steps {begin} to {self.end - 1}: " + ", ".join(parts)

    def state(self) -> dict[str, Any]:
        """Plain values for a checkpoint, of now: what comes later does not change them."""
        return {
            "segments": [list(s) for s in self.segments],
            "shares": list(self._shares),
            "halves": deepcopy(self._halves),
        }


def _empty_halves() -> list[list[list[float]]]:
    """Sum of losses and number of samples, by half of the segment and task."""
    return [[[0.0, 0] for _ in TASKS] for _ in range(2)]


def _mean(pair: Sequence[float]) -> float | None:
    total, count = pair
    return total / count if count else None
