"""What is missing, and how to put it right."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Finding:
    """One thing that is missing.

    Attributes:
        where: in the file, or on this machine.
        what: is wrong, and what would come of it.
        do: the way out.
    """

    where: str
    what: str
    do: str


@dataclass(frozen=True)
class Report:
    """Of one file.

    Attributes:
        kind: ``aws``, ``gcp``, ``local`` or ``kubernetes``.
        missing: what was found.
        not_checked: what cannot be seen from here.
    """

    kind: str
    missing: tuple[Finding, ...]
    not_checked: tuple[str, ...]


def table(value: Any) -> dict[str, Any]:
    """A mapping as it is; anything else, which the schema refuses elsewhere, as an empty one."""
    return value if isinstance(value, dict) else {}


def rows(value: Any) -> list[Any]:
    """A list as it is; anything else as an empty one."""
    return value if isinstance(value, list) else []
