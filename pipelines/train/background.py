"""Work beside training: a thread with a result, and patience with storage."""

import errno
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from pipelines.storage import storage_errors
from pipelines.store.fetch import Retry

_Result = TypeVar("_Result")
#: Of a disk: full, over quota, read-only.
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def in_background(work: Callable[[], _Result], name: str) -> "Future[_Result]":
    """Runs ``work`` in a thread that does not keep a dying process alive."""
    future: Future[_Result] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # handed to whoever asks for the result
            future.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future


class Patience:
    """Repeats what storage refuses, with growing pauses.

    Args:
        retry: for how long.

    Attributes:
        retries: repetitions so far.
    """

    def __init__(self, retry: Retry) -> None:
        self._retry = retry
        self.retries = 0

    def __call__(self, work: Callable[[], _Result]) -> _Result:
        """The result of ``work``, which may be run again from its start.

        Raises:
            Exception: the last error, when the patience is spent, or at once when waiting is of no use.
        """
        started, pause = time.monotonic(), self._retry.first_s
        while True:
            try:
                return work()
            except storage_errors() as error:
                patience = self._retry.refused_s if _refused(error) else self._retry.patience_s
                if time.monotonic() - started >= patience:
                    raise
            self.retries += 1
            # Jitter, so that many workers do not come back at the same moment.
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(self._retry.longest_s, 2 * pause)


def _refused(error: Exception) -> bool:
    """Whether waiting rarely helps: no permission, no space, no such file."""
    if isinstance(error, FileNotFoundError | PermissionError):
        return True
    return isinstance(error, OSError) and error.errno in NO_SPACE
