"""Work beside training: a thread with a result, and patience with storage."""

import errno
import logging
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from fsspec import AbstractFileSystem

from pipelines.storage.filesystem import storage_errors
from pipelines.storage.retry import Retry

_Result = TypeVar("_Result")
logger = logging.getLogger(__name__)
#: Of a disk: full, over quota, read-only.
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
#: Seconds without an answer after which it is worth a warning.
_WORTH_A_WORD = 5.0


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
    """Repeats what storage refuses, with growing pauses; says so when it takes long.

    Args:
        retry: for how long.
        final: an error that is an answer, not a refusal: raised at once.

    Attributes:
        retries: repetitions so far, of all threads.
    """

    def __init__(self, retry: Retry, final: Callable[[Exception], bool] = lambda error: False) -> None:
        self._retry, self._final = retry, final
        self.retries = 0

    def __call__(self, work: Callable[[], _Result]) -> _Result:
        """The result of ``work``, which may be run again from its start.

        Raises:
            Exception: the last error, when the patience is spent, or at once when waiting is of no use.
        """
        started, pause, said = time.monotonic(), self._retry.first_s, False
        while True:
            try:
                return work()
            except storage_errors() as error:
                patience = self._retry.refused_s if _refused(error) else self._retry.patience_s
                waited = time.monotonic() - started
                if self._final(error) or waited >= patience:
                    raise
                if waited > _WORTH_A_WORD and not said:
                    said = True
                    text = " ".join(str(error).split())[:200] or type(error).__name__
                    logger.warning("storage does not answer (%s); trying on for up to %.0f s", text, patience)
            self.retries += 1
            # Jitter, so that many workers do not come back at the same moment.
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(self._retry.longest_s, 2 * pause)


class PatientFiles:
    """An object store's filesystem whose calls are repeated with patience; else as the filesystem itself.

    Streams from ``open`` are not covered: their reader repeats the whole reading.

    Args:
        files: a filesystem whose own client does not repeat much.
        retry: how errors are met.

    Attributes:
        patience: counts the repetitions.
    """

    def __init__(self, files: AbstractFileSystem, retry: Retry) -> None:
        self._files, self.patience = files, Patience(retry, final=_is_answer)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._files, name)
        if name == "open" or not callable(found):
            return found
        return lambda *arguments, **named: self.patience(lambda: found(*arguments, **named))


def _is_answer(error: Exception) -> bool:
    """Whether storage did answer: there is no such object, there is one already, or the request is wrong."""
    if isinstance(error, FileNotFoundError | FileExistsError):
        return True
    return isinstance(error, OSError) and error.errno == errno.EINVAL


def _refused(error: Exception) -> bool:
    """Whether waiting rarely helps: no permission, no space, no such file."""
    if isinstance(error, FileNotFoundError | PermissionError):
        return True
    return isinstance(error, OSError) and error.errno in NO_SPACE
