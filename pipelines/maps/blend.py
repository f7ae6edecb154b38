"""Logits of overlapping windows added up in integers, and what becomes of the sums."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from pipelines.maps.grid import Grid, Rect
from unigeoseg.metrics import logit

#: Logits are clipped to this; the sigmoid is within 1.2e-7 of its end there.
CLIP = 16
#: Steps of a logit.
SCALE = 1024
#: Values of a mask besides 0 and 1, and of a score besides 0 to :data:`FULL`.
NOT_COMPUTED, NO_DATA = 254, 255
#: Score of a certain pixel.
FULL = 250
#: Rows that are finished at once.
_STRIP = 256

Mask = NDArray[np.uint8]


def quantised(logits: NDArray[np.float32]) -> NDArray[np.int32]:
    """Logits as integers: clipped to ±16, times 1024, rounded."""
    return np.rint(np.clip(logits, -CLIP, CLIP) * np.float32(SCALE)).astype(np.int32)


class Sums:
    """The weighted sum of a block's windows.

    Args:
        grid: of the raster.
        block: the part that is filled.
    """

    def __init__(self, grid: Grid, block: Rect) -> None:
        self._grid, self._block = grid, block
        self._rows, self._columns = grid.windows_of(block)
        # Weights add up to (2n)^2; from a side of 728 pixels on the sums need more than 31 bits.
        small = (2 * grid.overlap) ** 2 * CLIP * SCALE < 2**31
        self._sums = np.zeros((block.height, block.width), np.int32 if small else np.int64)
        self._there = np.zeros((len(self._rows), len(self._columns)), np.float64)

    def add(self, row: int, column: int, logits: NDArray[np.float32]) -> None:
        """Adds a window's logits ``[S, S]``, each window once."""
        grid, window = self._grid, self._grid.window(row, column)
        part = window.cut(self._block)
        rows, columns = part.inside(window)
        down, across = (grid.ramp(n, count) for n, count in zip((row, column), grid.shape, strict=True))
        weights = (down[rows, None] * across[None, columns]).astype(self._sums.dtype)
        self._sums[part.inside(self._block)] += quantised(logits[rows, columns]) * weights
        self._there[row - self._rows.start, column - self._columns.start] = 1

    def finish(self, valid: NDArray[np.bool_], threshold: float) -> tuple[Mask, Mask]:
        """Mask and score, uint8 at the block's size.

        Args:
            valid: where there is data.
            threshold: probability in (0, 1) above which a pixel is foreground.
        """
        mask, score = np.empty_like(valid, np.uint8), np.empty_like(valid, np.uint8)
        down, across = self._ramps(self._rows, 0), self._ramps(self._columns, 1)
        least = round(logit(threshold) * SCALE)
        for start in range(0, len(mask), _STRIP):
            strip = slice(start, start + _STRIP)
            # Products and sums of whole numbers below 2^53: exact in float64.
            weights = np.rint(down[:, strip].T @ self._there @ across).astype(np.int64)
            sums = self._sums[strip].astype(np.int64)
            mask[strip] = sums > least * weights
            mean = sums // np.maximum(weights, 1)
            score[strip] = score_levels()[mean + CLIP * SCALE]
            for values in (mask[strip], score[strip]):
                values[weights == 0] = NOT_COMPUTED
                values[~valid[strip]] = NO_DATA
        return mask, score

    def _ramps(self, numbers: range, axis: int) -> NDArray[np.float64]:
        """Weights of each window's rows (or columns) along the block's, ``[windows, block]``."""
        grid = self._grid
        first = (self._block.top, self._block.left)[axis]
        length = (self._block.height, self._block.width)[axis]
        found = np.zeros((len(numbers), length))
        for at, number in enumerate(numbers):
            start = number * grid.stride - first
            low, high = max(start, 0), min(start + grid.size, length)
            found[at, low:high] = grid.ramp(number, grid.shape[axis])[low - start : high - start]
        return found


@cache
def score_levels() -> Mask:
    """The score of each quantised logit from -16 x 1024 to 16 x 1024: probability times 250, rounded."""
    steps = np.arange(-CLIP * SCALE, CLIP * SCALE + 1) / SCALE
    return np.rint(FULL / (1 + np.exp(-steps))).astype(np.uint8)


def of_one_view(logits: NDArray[np.float32], valid: NDArray[np.bool_], threshold: float) -> tuple[Mask, Mask]:
    """Mask and score of a single view ``[H, W]``, the mask exactly as ``predict`` cuts it.

    Args:
        logits: at the view's size.
        valid: where there is data.
        threshold: probability in (0, 1).
    """
    mask = (logits > logit(threshold)).astype(np.uint8)
    score = score_levels()[quantised(logits) + CLIP * SCALE]
    for values in (mask, score):
        values[~valid] = NO_DATA
    return mask, score
