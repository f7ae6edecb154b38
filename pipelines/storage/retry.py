"""How long storage that does not answer is waited for: the one policy of all who repeat their requests."""

import errno
import random
import time
from dataclasses import dataclass
from typing import Final

#: Of a disk: full, over quota, read-only.
NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_NO_CREDENTIALS: Final = ("NoCredentialsError", "PartialCredentialsError")


@dataclass(frozen=True)
class Retry:
    """How storage errors are met.

    Attributes:
        patience_s: how long an object may stay out of reach before the run stops; more than the minute of an
            ordinary outage.
        refused_s: the same for an object that is missing, refused or too short, where waiting rarely helps.
        first_s: pause before the first repetition; it doubles each time.
        longest_s: longest pause.
    """

    patience_s: float = 180.0
    refused_s: float = 3.0
    first_s: float = 0.2
    longest_s: float = 10.0

    def allowed(self, error: BaseException) -> float:
        """Seconds for which this error is borne."""
        return self.refused_s if is_refusal(error) else self.patience_s


class ShortRead(OSError):
    """Storage delivered fewer bytes than the index promises."""


def is_refusal(error: BaseException) -> bool:
    """Whether waiting rarely helps: no permission, no space, no such file, or one that is too short."""
    if isinstance(error, FileNotFoundError | PermissionError | NotADirectoryError | ShortRead):
        return True
    if type(error).__name__ in _NO_CREDENTIALS:
        return True
    return isinstance(error, OSError) and error.errno in NO_SPACE


class Attempts:
    """The repetitions of one piece of work, with growing pauses."""

    def __init__(self, retry: Retry) -> None:
        self._retry, self._pause, self._started = retry, retry.first_s, time.monotonic()

    @property
    def waited(self) -> float:
        """Seconds since the first attempt began."""
        return time.monotonic() - self._started

    def are_spent(self, error: BaseException) -> bool:
        """Whether this error is borne no longer."""
        return self.waited >= self._retry.allowed(error)

    def wait(self) -> None:
        """The pause before the next attempt; with jitter, so that many workers do not come back together."""
        time.sleep(self._pause * random.uniform(0.5, 1.0))
        self._pause = min(self._retry.longest_s, 2 * self._pause)
