"""How well a map agrees with the truth, from counts of pixels: measures, their spread, other thresholds.

Precision is the map maker's user's accuracy of the class that was mapped, recall its producer's accuracy.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.maps.blend import FULL

#: Of :class:`Counts`, by columns: found and there, found alone, there alone, neither.
BOTH, FALSE, MISSED, NEITHER = range(4)
MEASURES = ("IoU", "precision", "recall", "F1", "accuracy")
#: Squares that are drawn with replacement, how often; fewer squares tell no spread.
_DRAWS, _FEWEST = 1000, 8
_PERCENTILES = (2.5, 97.5)


@dataclass
class Counts:
    """Pixels of a map's squares.

    Attributes:
        squares: int64 ``[N, 4]``: pixels of each square by :data:`BOTH`, :data:`FALSE`, :data:`MISSED`,
            :data:`NEITHER`.
        scores: int64 ``[2, 251]``: pixels that are not there, and that are, by their score of ``score.tif``.
    """

    squares: NDArray[np.int64]
    scores: NDArray[np.int64]


def measures(counts: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """Measures by their names, float64 ``[...]``; NaN where nothing of their denominator was seen.

    Args:
        counts: int64 ``[..., 4]``.
    """
    both, false, missed, neither = (counts[..., at].astype(np.float64) for at in range(4))
    with np.errstate(invalid="ignore"):  # 0 / 0
        return {
            "IoU": both / (both + false + missed),
            "precision": both / (both + false),
            "recall": both / (both + missed),
            "F1": 2 * both / (2 * both + false + missed),
            "accuracy": (both + neither) / (both + false + missed + neither),
        }


def agreement(counts: Counts) -> dict[str, Any]:
    """Measures of all squares together, and between which values 95 of 100 maps of such squares would lie.

    Neighbouring pixels are right and wrong together, so whole squares are drawn, with replacement (the
    bootstrap of Efron 1979 on blocks); what reaches over several squares makes the true spread wider.

    Returns:
        ``{"IoU": ..., ..., "spread": {"IoU": [low, high], ...} or None, "squares"}``; ``None`` where a
        measure has no meaning, as recall of what is nowhere.
    """
    squares = counts.squares[counts.squares.sum(1) > 0]
    told: dict[str, Any] = {name: _number(value) for name, value in measures(squares.sum(0)).items()}
    spread = None
    if len(squares) >= _FEWEST:
        generator = np.random.default_rng(0)
        weights = generator.multinomial(len(squares), np.full(len(squares), 1 / len(squares)), _DRAWS)
        drawn = measures(weights @ squares)
        spread = {name: _range(values) for name, values in drawn.items()}
    return {**told, "spread": spread, "squares": len(squares)}


def thresholds(counts: Counts) -> dict[str, Any] | None:
    """What other thresholds on the scores would give.

    Returns:
        ``{"best": {"threshold", "IoU", "precision", "recall", "F1"}, "average_precision", "curve": [the
        same rows, thresholds falling]}``; ``None`` where the truth is everywhere or nowhere.
    """
    there, other = counts.scores[1], counts.scores[0]
    if not there.sum() or not other.sum():
        return None
    both, false = np.cumsum(there[::-1]), np.cumsum(other[::-1])
    rows = np.stack([both, false, there.sum() - both, other.sum() - false], 1)
    seen = np.flatnonzero(np.diff(both + false, prepend=0))  # what no pixel scores changes nothing
    found = measures(rows[seen])
    levels = (FULL - seen) / FULL
    curve = [
        {"threshold": float(level), **{n: float(found[n][at]) for n in MEASURES[:4]}}
        for at, level in enumerate(levels)
    ]
    steps = np.diff(found["recall"], prepend=0)
    return {
        "best": max(curve, key=lambda row: row["IoU"]),
        "average_precision": float((steps * found["precision"]).sum()),
        "curve": curve,
    }


def _number(value: NDArray[np.float64]) -> float | None:
    return None if np.isnan(value) else float(value)


def _range(values: NDArray[np.float64]) -> list[float] | None:
    known = values[~np.isnan(values)]
    return [float(v) for v in np.percentile(known, _PERCENTILES)] if len(known) else None
