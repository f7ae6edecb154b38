"""Outlines of objects: which are usable, and their pixels inside a window."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import rasterio.features
from numpy.typing import NDArray

from pipelines.labels.regions import Region
from pipelines.labels.tiling import Window

_LEAST_AREA = 1.0


@dataclass(frozen=True)
class Outline:
    """A usable object: its category and corners, float64 ``[N, 2]`` x, y in pixels of the image.

    It stands around the object (a box, often turned), so it is not ``exact``: a promptable model may do
    better.
    """

    category_id: int
    corners: NDArray[np.float64]
    exact: bool = False

    @property
    def box(self) -> tuple[float, float, float, float]:
        """x0, y0, x1, y1."""
        (x0, y0), (x1, y1) = self.corners.min(0), self.corners.max(0)
        return float(x0), float(y0), float(x1), float(y1)

    def draw(self, window: Window) -> Region | None:
        """See :func:`draw`."""
        return draw(self, window)


def fault(corners: NDArray[np.float64], height: int, width: int) -> str | None:
    """Why an outline cannot be used: ``degenerate`` (less than a pixel) or ``outside``; else ``None``."""
    if len(corners) < 3 or not np.isfinite(corners).all():
        return "degenerate"
    span = corners.max(0) - corners.min(0)
    if area(corners) < _LEAST_AREA or span.min() < 1.0:
        return "degenerate"
    low, high = corners.min(0), corners.max(0)
    if low[0] >= width or low[1] >= height or high[0] <= 0 or high[1] <= 0:
        return "outside"
    return None


def area(corners: NDArray[np.float64]) -> float:
    """Area of a simple polygon (shoelace formula); corners in any of the two directions."""
    return abs(signed_area(corners))


def signed_area(corners: NDArray[np.float64]) -> float:
    """The same with a sign: positive for corners that go clockwise in a picture (y down)."""
    x, y = corners[:, 0], corners[:, 1]
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


def reaches_out(corners: NDArray[np.float64], height: int, width: int) -> bool:
    """Whether a part lies outside the image."""
    low, high = corners.min(0), corners.max(0)
    return bool(low.min() < 0 or high[0] > width or high[1] > height)


def order(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Corners around their centre: repairs quadrilaterals whose sides cross."""
    centre = corners.mean(0)
    return corners[np.argsort(np.arctan2(*(corners - centre).T[::-1]), kind="stable")]


def draw(outline: Outline, window: Window) -> Region | None:
    """The pixels of a window whose centres lie inside an outline; ``None`` without any."""
    x0, y0, x1, y1 = outline.box
    left, top = max(int(np.floor(x0)), window.x), max(int(np.floor(y0)), window.y)
    right = min(int(np.ceil(x1)), window.x + window.width)
    bottom = min(int(np.ceil(y1)), window.y + window.height)
    if left >= right or top >= bottom:
        return None
    shape = {"type": "Polygon", "coordinates": [_ring(outline.corners - [left, top])]}
    filled = rasterio.features.rasterize([(shape, 1)], out_shape=(bottom - top, right - left), dtype=np.uint8)
    return tight(outline.category_id, filled.astype(bool), top - window.y, left - window.x)


def _ring(corners: NDArray[np.float64]) -> Sequence[tuple[float, float]]:
    ring = [(float(x), float(y)) for x, y in corners]
    return [*ring, ring[0]]


def tight(category: int, mask: NDArray[np.bool_], y: int, x: int) -> Region | None:
    """A mask at (y, x) as a region with a tight rectangle; ``None`` if it is empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    y0, y1, x0, x1 = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    return Region(category, y + y0, x + x0, y + y1, x + x1, mask[y0:y1, x0:x1])
