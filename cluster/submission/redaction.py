"""Keeps secrets out of what processes print and log."""

import logging
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, TextIO

HIDDEN = "<hidden>"
#: Variable with the names of those variables that are secrets, separated by commas.
SECRET_NAMES = "UNIGEOSEG_SECRET_NAMES"
_SHORTEST = 6


class Redactor:
    """Replaces secrets in text.

    Args:
        values: the secrets. Very short ones are not looked for: they would blacken half of a log.
    """

    def __init__(self, values: Mapping[str, str]) -> None:
        parts = {part for value in values.values() for part in (value, *value.splitlines())}
        self._values = sorted((v for v in parts if len(v) >= _SHORTEST), key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """``text`` without them."""
        for value in self._values:
            text = text.replace(value, HIDDEN)
        return text


def keep_out_of_logs(values: Mapping[str, str]) -> None:
    """From now on, what this process prints or logs (to files of Ray's loggers, too) is without ``values``.

    Only what passes through Python is seen; output of C code is not.
    """
    redact = Redactor(values)
    for stream in (sys.stdout, sys.stderr):
        _guard(stream, redact)
    logging.setLogRecordFactory(_records(redact, logging.getLogRecordFactory()))


def guard_this_process() -> None:
    """:func:`keep_out_of_logs` for the variables that ``UNIGEOSEG_SECRET_NAMES`` names, if it is set."""
    names = os.environ.get(SECRET_NAMES, "").split(",")
    values = {name: os.environ[name] for name in names if os.environ.get(name)}
    if values:
        keep_out_of_logs(values)


def _guard(stream: TextIO, redact: Redactor) -> None:
    """The same object goes on being written to, since handlers of loggers hold it already."""
    write = stream.write

    def guarded(text: str) -> int:
        write(redact(text))
        return len(text)

    stream.write = guarded  # type: ignore[method-assign]


def _records(redact: Redactor, make: Callable[..., logging.LogRecord]) -> Callable[..., logging.LogRecord]:
    def made(*arguments: Any, **named: Any) -> logging.LogRecord:
        record = make(*arguments, **named)
        try:
            text = record.getMessage()
        except (TypeError, ValueError, KeyError):  # a wrong format: the handler says so
            text = f"{record.msg} {record.args}"
        if redact(text) != text:
            record.msg, record.args = redact(text), ()
        if record.exc_info and record.exc_info[0] is not None:
            record.exc_text = redact(logging.Formatter().formatException(record.exc_info))
        return record

    return made
