"""The hand that another program has on a running training: it sees the logged rows and may stop the run."""

import threading
from collections.abc import Callable
from typing import Any


class RunStopped(Exception):
    """A training was ended by its observer."""


class Observer:
    """Sees each metrics row as it is logged, and can end the run early (a sweep's scheduler does both).

    Args:
        on_row: called with each row, in a thread of the training's; rows of steps that were replayed after a
            restart come again.
    """

    def __init__(self, on_row: Callable[[dict[str, Any]], None]) -> None:
        self.on_row = on_row
        self._abort: Callable[[], None] | None = None
        self._lock = threading.Lock()
        self._stopped = False

    @property
    def stopped(self) -> bool:
        """Whether the run was told to stop."""
        return self._stopped

    def stop(self) -> None:
        """Ends the run; it is recorded as killed. Returns when its workers are told."""
        with self._lock:
            self._stopped, abort = True, self._abort
        if abort is not None:
            abort()

    def bind(self, abort: Callable[[], None]) -> None:
        """Tells what ends the run; a stop that came before takes effect at once."""
        with self._lock:
            self._abort = abort
        if self._stopped:
            abort()
