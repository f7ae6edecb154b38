"""Records of a run with one JSON object a line: ``ledger.jsonl`` and ``metrics.jsonl``.

A resumed run replays the steps after its checkpoint; their old rows are cut off first, so that every step
stands there once, whatever happened on the way.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any


class StepLog:
    """An append-only file of rows that have a ``step``.

    Args:
        path: made if needed.
        resume_step: rows of this step and later are removed, and so is a row cut short by a crash.
    """

    def __init__(self, path: Path, resume_step: int = 0) -> None:
        self.path = path
        kept = [row for row in read_rows(path) if row["step"] < resume_step]
        partial = path.with_suffix(".partial")
        with partial.open("w", encoding="utf-8") as file:
            file.writelines(_line(row) for row in kept)
        partial.replace(path)
        self._file = path.open("a", encoding="utf-8")

    def append(self, rows: Iterable[dict[str, Any]]) -> None:
        """Adds rows and hands them to the operating system, so that a killed process loses none."""
        self._file.writelines(_line(row) for row in rows)
        self._file.flush()

    def sync(self) -> None:
        """Waits until all rows are on disk (before a checkpoint counts)."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def read_rows(path: Path) -> list[dict[str, Any]]:
    """All whole rows of a file; none if it is missing."""
    return parse_rows(path.read_bytes()) if path.is_file() else []


def parse_rows(data: bytes) -> list[dict[str, Any]]:
    """The rows of such a file; a line that was cut short by a crash, or is being written, is left out."""
    rows = []
    for line in data.split(b"\n"):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"
