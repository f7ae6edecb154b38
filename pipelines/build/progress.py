"""What the user of a build watches: a bar a step on a terminal, plain lines elsewhere, both on stderr."""

import sys
import time
from collections.abc import Callable
from types import TracebackType

from tqdm import tqdm

_SECONDS_BETWEEN_LINES = 5.0


class Steps:
    """Progress of one step of work, as a context.

    Args:
        name: of the step, such as ``dubai tiles``.
        unit: what is counted, singular.
        total: how many there are.
        enabled: off shows nothing.
        clock: seconds, for the pauses between lines.
    """

    def __init__(
        self,
        name: str,
        unit: str,
        total: int,
        enabled: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name, self._unit, self._total = name, unit, total
        self._enabled, self._clock = enabled, clock
        self._done, self._note = 0, ""
        self._started = self._last = clock()
        self._told = -1
        terminal = enabled and sys.stderr.isatty()
        self._bar = tqdm(total=total, unit=unit, desc=name, file=sys.stderr, leave=True) if terminal else None

    def update(self, count: int = 1, note: str = "") -> None:
        """Counts what was finished; ``note`` is shown behind the count from then on."""
        self._done += count
        self._note = note or self._note
        if self._bar is not None:
            self._bar.set_postfix_str(self._note, refresh=False)
            self._bar.update(count)
        elif self._enabled and self._clock() - self._last >= _SECONDS_BETWEEN_LINES:
            self._line()

    def __enter__(self) -> "Steps":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._enabled and self._done != self._told and kind is None:
            self._line()

    def _line(self) -> None:
        self._last, self._told = self._clock(), self._done
        seconds = self._last - self._started
        share = f" {self._done / self._total:4.0%}" if self._total else ""
        rate = f", {self._done / seconds:.1f} {self._unit}s/s" if seconds > 1 and self._done else ""
        left = ""
        if 0 < self._done < self._total and seconds > 1:
            wait = int(seconds / self._done * (self._total - self._done))
            left = f", ETA {wait // 60}:{wait % 60:02d}"
        note = f", {self._note}" if self._note else ""
        print(
            f"{self._name}: {self._done}/{self._total} {self._unit}s{share}{note}{rate}{left}",
            file=sys.stderr,
            flush=True,
        )
