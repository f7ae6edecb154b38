"""What the user watches: a bar on a terminal, plain lines elsewhere. Both go to stderr."""

import logging
import sys
import time
from typing import Any

from tqdm import tqdm

from pipelines.train.loop.advice import Advice, Totals, memory_in_words

logger = logging.getLogger(__name__)
_SECONDS_BETWEEN_LINES = 5.0


class Progress:
    """Shows metrics rows as they come.

    Args:
        steps: of the whole run.
        enabled: off shows nothing but warnings.

    Attributes:
        totals: sums over the rows.
    """

    def __init__(self, steps: int, enabled: bool = True) -> None:
        self._steps, self._enabled = steps, enabled
        self.totals = Totals()
        self._advice = Advice(self._warn)
        self._bar = (
            tqdm(total=steps, unit="step", file=sys.stderr, dynamic_ncols=True)
            if enabled and sys.stderr.isatty()
            else None
        )
        self._started: tuple[float, int] | None = None
        self._last_line = 0.0

    def handle(self, kind: str, content: dict[str, Any]) -> None:
        """Takes a message of the training worker."""
        if kind == "row":
            self.totals.row(content)
            self._advice.row(content)
            self.row(content)
        elif kind == "log":
            logging.getLogger(content["name"]).log(content["level"], content["message"])
        elif kind == "note" and self._enabled:
            self._write(content["message"])

    def _warn(self, text: str) -> None:
        logger.warning("%s", text)
        self.totals.warnings.append(text)

    def row(self, row: dict[str, Any]) -> None:
        """Shows a logged step."""
        if not self._enabled:
            return
        done = row["step"] + 1
        if self._bar is not None:
            if self._started is None or done < self._bar.n:
                # The bar's rate counts from here: a run was resumed, or a restarted group replays steps.
                self._bar.initial, self._bar.start_t = done - 1, time.time()
                self._started = (time.monotonic(), done)
            self._bar.n = done
            self._bar.set_postfix_str(describe(row), refresh=False)
            self._bar.refresh()
            return
        now = time.monotonic()
        if self._started is None or done <= self._started[1]:
            self._started = (now, done)
        if now - self._last_line < _SECONDS_BETWEEN_LINES and done < self._steps:
            return
        self._last_line = now
        self._write(
            f"step {done}/{self._steps} {done / self._steps:4.0%} {self._eta(now, done)}{describe(row)}"
        )

    def close(self) -> None:
        """Leaves the last state on the screen."""
        if self._bar is not None:
            self._bar.close()

    def _eta(self, now: float, done: int) -> str:
        assert self._started is not None
        began, first = self._started
        if done == first:
            return ""
        left = (now - began) / (done - first) * (self._steps - done)
        return f"ETA {int(left) // 60}:{int(left) % 60:02d} "

    def _write(self, text: str) -> None:
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)


def describe(row: dict[str, Any]) -> str:
    """The numbers of a row in one line."""
    tasks = " ".join(
        f"{task[:3]} {loss:.2f}" for task, loss in row["task_losses"].items() if loss is not None
    )
    rates = row["rates"]
    loss = "left out" if row["loss"] is None else f"loss {row['loss']:.3f}"
    parts = [f"position {row['position']}", loss + (f" ({tasks})" if tasks else "")]
    empty = " ".join(
        f"{task[:3]} {share:.0%}" for task, share in row.get("empty", {}).items() if share is not None
    )
    parts += [f"empty {empty}"] if empty else []
    for name, what in (("val", "held-out"), ("train_eval", "training")):
        reached = " ".join(f"{task[:3]} {found['gIoU']:.3f}" for task, found in row.get(name, {}).items())
        parts += [f"{what} gIoU {reached}"] if reached else []
    if rates:
        parts.append(f"{rates['samples_per_s']:.1f} samples/s")
        parts.append(f"wait {row['waits']['data'] / max(1e-9, row['waits']['step']):.0%}")
    parts.append(f"memory {memory_in_words(row['memory'])}")
    return ", ".join(parts)
