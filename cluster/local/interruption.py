"""Signals that end ``up``: they unwind it, and do not disturb it while it cleans up."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

#: Asked to end, and the terminal or the ssh connection closed.
_ENDING = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def unwinding() -> Iterator[None]:
    """Turns the signals that end a process into ``SystemExit``, as Ctrl-C is an exception already.

    A signal that is ignored (SIGHUP below ``nohup``) stays so.
    """
    before = {number: signal.getsignal(number) for number in _ENDING}
    kept = {number: known for number, known in before.items() if known is not signal.SIG_IGN}
    for number in kept:
        signal.signal(number, _stopped)
    try:
        yield
    finally:
        for number, known in kept.items():
            signal.signal(number, known)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Ignores those signals and Ctrl-C while what was started is being stopped."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (*_ENDING, signal.SIGINT)}
    try:
        yield
    finally:
        for number, known in before.items():
            signal.signal(number, known)


def _stopped(number: int, frame: object) -> None:
    raise SystemExit(128 + number)
