"""How trials went: a line for each as it ends, and the errors of those that failed."""

import logging
import sys
from collections.abc import Callable, Mapping
from typing import Any

from ray import tune
from ray.tune import ResultGrid
from tqdm import tqdm

from pipelines.experiments.trial import COMPLETE

_LOG = logging.getLogger(__name__)
#: Names a trial from its Tune configuration.
Namer = Callable[[Mapping[str, Any]], str]


class TrialProgress(tune.Callback):
    """A bar over trials on a terminal, a line for each elsewhere; both on stderr.

    Args:
        total: number of trials.
        enabled: off shows nothing.
        name: names a trial; ``None`` takes Tune's own id.
    """

    def __init__(self, total: int, enabled: bool, name: Namer | None = None) -> None:
        self._name, self._total, self._ended = name, total, 0
        self._enabled = enabled
        on_terminal = enabled and sys.stderr.isatty()
        self._bar = tqdm(total=total, unit="run", file=sys.stderr) if on_terminal else None

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Says that a trial begins."""
        self._show(f"start  {self._called(trial)}")

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Says how a trial ended, and where it stood."""
        last = trial.last_result or {}
        value = last.get("val/gIoU")
        found = "" if value is None else f", mean gIoU {value:.3f}"
        early = "" if last.get(COMPLETE) else " (ended early by the scheduler)"
        self._count(f"done   {self._called(trial)}: step {last.get('step', 0)}{found}{early}")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Says that a trial failed."""
        self._count(f"failed {self._called(trial)}: {short_error(trial.error_file)}")

    def close(self) -> None:
        """Leaves the last state on the screen."""
        if self._bar is not None:
            self._bar.close()

    def _called(self, trial: Any) -> str:
        return self._name(trial.config) if self._name else f"trial-{trial.trial_id}"

    def _count(self, text: str) -> None:
        self._ended += 1
        if self._bar is not None:
            self._bar.update()
        self._show(f"[{self._ended}/{self._total}] {text}")

    def _show(self, text: str) -> None:
        if not self._enabled:
            return
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)


def failures(results: ResultGrid, name: Namer) -> dict[str, str]:
    """Name to the last line of the error, of each trial that failed."""
    return {
        name(result.config or {}): last_line(str(result.error))
        for result in results
        if result.error is not None
    }


def last_line(text: str) -> str:
    """The line of a traceback that says what happened."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no message"


def short_error(path: str | None) -> str:
    """The same of an error file of Tune's."""
    try:
        with open(path or "", encoding="utf-8") as file:  # noqa: PTH123
            return last_line(file.read())
    except OSError:
        return "no message"
