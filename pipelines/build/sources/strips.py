"""Windows of an image from the top to the bottom, with one row of tiles (of a band, if wide) in memory."""

from collections.abc import Callable

import numpy as np

from pipelines.labels.tiling import Window
from pipelines.pictures.rasters import ALL, Grid, Raster


class Strips:
    """Keeps the rows of the current row of windows; each row of the file is read and treated once.

    Args:
        raster: the file.
        treat: what is done to each freshly read band of rows, such as decoding a mask.
    """

    def __init__(self, raster: Raster, treat: Callable[[Grid], Grid] | None = None) -> None:
        self._raster, self._treat = raster, treat
        self._start, self._rows = 0, None  # type: int, Grid | None
        self._band: tuple[int, int] | None = None

    def cut(self, window: Window) -> Grid:
        """The part in a window; those of a band must not go back above rows that were given up.

        Raises:
            UnusableImage: the file is damaged.
        """
        if window.band != self._band:
            self._start, self._rows, self._band = 0, None, window.band
        left = window.x - (self._band[0] if self._band else 0)
        self._reach(window.y, window.y + window.height)
        assert self._rows is not None
        first = window.y - self._start
        return self._rows[first : first + window.height, left : left + window.width]

    def _reach(self, start: int, stop: int) -> None:
        end = self._start + (0 if self._rows is None else len(self._rows))
        if start < self._start:
            raise ValueError(f"row {start} was given up; windows go from the top to the bottom")
        if stop <= end:
            return
        fresh = self._raster.rows(end, stop, slice(*self._band) if self._band else ALL)
        fresh = fresh if self._treat is None else self._treat(fresh)
        if self._rows is None or start >= end:
            self._rows, self._start = fresh[max(start - end, 0) :], max(start, end)
        else:
            self._rows = np.concatenate([self._rows[start - self._start :], fresh])
            self._start = start
