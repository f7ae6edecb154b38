"""Work beside training: a thread with a result, and patience with storage."""

import errno
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from fsspec import AbstractFileSystem

from pipelines.storage.filesystem import storage_errors
from pipelines.storage.retry import Attempts, Retry
from unigeoseg.errors import UserError

_Result = TypeVar("_Result")
logger = logging.getLogger(__name__)
#: Marks an error on which a :class:`Patience` gave up.
_SETTLED = "_unigeoseg_settled"
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

    Work may hold work that is repeated by itself (a file of many that are sent): an error on which that was
    given up is not met with patience again.

    Args:
        retry: for how long.

    Attributes:
        retries: repetitions so far, of all threads.
    """

    def __init__(self, retry: Retry) -> None:
        self._retry = retry
        self.retries = 0

    def __call__(
        self, work: Callable[[], _Result], final: Callable[[Exception], bool] = lambda error: False
    ) -> _Result:
        """The result of ``work``, which may be run again from its start.

        Args:
            work: what storage may refuse.
            final: an error that is an answer, not a refusal: raised at once.

        Raises:
            Exception: the last error, when the patience is spent, or at once when waiting is of no use.
        """
        attempts, said = Attempts(self._retry), False
        while True:
            try:
                return work()
            except storage_errors() as error:
                if _is_settled(error) or final(error) or attempts.are_spent(error):
                    error.__dict__[_SETTLED] = True
                    raise
                if attempts.waited > _WORTH_A_WORD and not said:
                    said = True
                    text = " ".join(str(error).split())[:200] or type(error).__name__
                    longest = self._retry.allowed(error)
                    logger.warning("storage does not answer (%s); trying on for up to %.0f s", text, longest)
            self.retries += 1
            attempts.wait()


def _is_settled(error: Exception) -> bool:
    """Whether patience was had with it already, or none is of use."""
    return isinstance(error, UserError) or _SETTLED in error.__dict__


class PatientFiles:
    """An object store's filesystem whose calls are repeated with patience; else as the filesystem itself.

    Streams from ``open`` are not covered: their reader repeats the whole reading.

    Args:
        files: a filesystem whose own client does not repeat much.
        patience: how errors are met; it counts the repetitions.
    """

    def __init__(self, files: AbstractFileSystem, patience: Patience) -> None:
        self._files, self._patience = files, patience

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._files, name)
        if name == "open" or not callable(found):
            return found
        return lambda *arguments, **named: self._patience(lambda: found(*arguments, **named), _is_answer)


def _is_answer(error: Exception) -> bool:
    """Whether storage did answer: there is no such object, there is one already, or the request is wrong."""
    if isinstance(error, FileNotFoundError | FileExistsError):
        return True
    return isinstance(error, OSError) and error.errno == errno.EINVAL
