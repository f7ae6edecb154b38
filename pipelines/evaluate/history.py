"""The course of a training run as arrays, from its ``metrics.jsonl``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.runs.ledger import read_rows

Series = NDArray[np.float64]


class History:
    """Logged steps in order; of a step that was logged again after a resume, the last row counts.

    Args:
        path: a ``metrics.jsonl``; a missing file is an empty history. A last line that was cut off by a crash
            is passed over.
    """

    def __init__(self, path: Path) -> None:
        rows: dict[int, dict[str, Any]] = {row["step"]: row for row in read_rows(path)}
        self._rows = [rows[step] for step in sorted(rows)]

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def steps(self) -> Series:
        """Optimizer step of each row."""
        return np.array([row["step"] for row in self._rows], dtype=np.float64)

    def series(self, *path: str) -> Series:
        """The value at ``path`` of each row, such as ``("losses", "mask_bce")``; NaN where it is absent."""
        return np.array([_number(_descend(row, path)) for row in self._rows])

    def names(self, key: str) -> list[str]:
        """The keys of the mapping ``key``, in order of appearance."""
        found: dict[str, None] = {}
        for row in self._rows:
            value = row.get(key)
            if isinstance(value, Mapping):
                found |= dict.fromkeys(value)
        return list(found)


def _descend(value: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")


def smooth(values: Series, span: int) -> Series:
    """Exponential moving average over about ``span`` values that starts unbiased; NaN are passed over."""
    result, weight, total, decay = np.full_like(values, np.nan), 0.0, 0.0, 1 - 1 / max(span, 1)
    for i, value in enumerate(values):
        if np.isfinite(value):
            weight, total = decay * weight + 1, decay * total + value
        if weight:
            result[i] = total / weight
    return result
