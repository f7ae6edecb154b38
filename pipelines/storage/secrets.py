"""Passwords and tokens inside URIs: never shown, never saved; taken from the environment where needed."""

import logging
import os
import re
from collections.abc import Callable
from typing import Any

HIDDEN = "<hidden>"
_USER = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]*://)"
    # user:password@, the password perhaps with a slash; a port is none
    r"(?:[^\s/?#'\"]+@|[^\s/:@'\"]+:(?!\d+(?:[/?#,\s'\"]|$))[^\s@'\"]+@)"
)
_QUERY = re.compile(
    r"(?P<name>[?&;][\w.\-]*(?:password|passwd|pwd|secret|token|api_?key|access_?key|signature|credential)"
    r"[\w.\-]*=)[^&;\s'\"#]+",
    re.IGNORECASE,
)


def hide(text: str) -> str:
    """A text without the users, passwords and tokens of the URIs in it."""
    if "://" not in text:
        return text
    return _QUERY.sub(rf"\g<name>{HIDDEN}", _USER.sub(rf"\g<scheme>{HIDDEN}@", text))


def hide_all(values: Any) -> Any:
    """Plain values, nested in mappings and lists, each text without secrets."""
    if isinstance(values, str):
        return hide(values)
    if isinstance(values, dict):
        return {key: hide_all(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [hide_all(value) for value in values]
    return values


def reveal(uri: str, variable: str = "MLFLOW_TRACKING_URI") -> str:
    """A saved URI with the secrets that it had, which the environment must hold.

    Args:
        uri: as it was saved.
        variable: of the environment, which may hold the same URI whole.

    Returns:
        The variable's value where it is the same URI; else the URI without a user, so that MLflow takes
        ``MLFLOW_TRACKING_USERNAME`` and ``MLFLOW_TRACKING_PASSWORD``, or a database its own.
    """
    if HIDDEN not in uri:
        return uri
    whole = os.environ.get(variable, "")
    if hide(whole) == uri:
        return whole
    return re.sub(rf"[?&;][\w.\-]*={HIDDEN}", "", uri.replace(f"{HIDDEN}@", ""))


def keep_out_of_logs() -> None:
    """From now on the records of this process's loggers are without secrets of URIs."""
    make = logging.getLogRecordFactory()
    if not getattr(make, "hides_uris", False):
        logging.setLogRecordFactory(_hiding(make))


def _hiding(make: Callable[..., logging.LogRecord]) -> Callable[..., logging.LogRecord]:
    def made(*arguments: Any, **named: Any) -> logging.LogRecord:
        record = make(*arguments, **named)
        try:
            text = record.getMessage()
        except (TypeError, ValueError, KeyError):  # a wrong format: the handler says so
            return record
        if (clean := hide(text)) != text:
            record.msg, record.args = clean, ()
        if record.exc_info and record.exc_info[0] is not None:
            record.exc_text = hide(logging.Formatter().formatException(record.exc_info))
        return record

    made.hides_uris = True  # type: ignore[attr-defined]
    return made
