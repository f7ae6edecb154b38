"""What the writer knows of a tile: where its regions lie, how large they are, how far apart."""

from collections.abc import Sequence
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from pipelines.labels.regions import Region
from pipelines.labels.taxonomy import taxonomy

#: Width of the rim around a region in which its surroundings are looked up.
_RIM_PX = 3


class TileFacts:
    """Geometry of all regions of a tile (also of those that may not become samples).

    Args:
        regions: every region of the tile.
        height: of the tile, pixels.
        width: of the tile, pixels.
    """

    def __init__(self, regions: Sequence[Region], height: int, width: int) -> None:
        self.regions, self.height, self.width = list(regions), height, width
        self.categories = np.asarray([r.category_id for r in regions], dtype=np.int64)
        self.areas = np.asarray([r.area for r in regions], dtype=np.float64)
        self.colours = [r.colour for r in regions]
        self._fields: dict[int, NDArray[np.float32]] = {}

    @cached_property
    def centres(self) -> NDArray[np.float64]:
        """Centroids (x, y) in [0, 1], float64 ``[N, 2]``."""
        found = np.zeros((len(self.regions), 2))
        for i, region in enumerate(self.regions):
            rows, columns = region.crop.sum(1), region.crop.sum(0)
            total = max(int(rows.sum()), 1)
            y = region.y0 + (rows * (np.arange(len(rows)) + 0.5)).sum() / total
            x = region.x0 + (columns * (np.arange(len(columns)) + 0.5)).sum() / total
            found[i] = x / self.width, y / self.height
        return found

    @cached_property
    def number_map(self) -> NDArray[np.int32]:
        """Which region each pixel belongs to: its place plus one, 0 for none; int32 ``[H, W]``."""
        found = np.zeros((self.height, self.width), np.int32)
        for place, region in enumerate(self.regions, 1):
            found[region.window][region.crop] = place
        return found

    @cached_property
    def elongations(self) -> NDArray[np.float64]:
        """Long over short side of each region's least enclosing rectangle (any angle), float64 ``[N]``."""
        return np.asarray([_elongation(r) for r in self.regions])

    def enclosed(self, anchor: int, places: NDArray[np.int64]) -> NDArray[np.float64]:
        """Greatest share of each region's rim that one region of category ``anchor`` covers.

        A region at the tile's border has no whole rim there: what lies outside counts as not covered.
        """
        return np.asarray([self._rim_share(self.regions[int(i)], anchor) for i in places])

    def _rim_share(self, region: Region, anchor: int) -> float:
        padded = np.pad(region.crop.astype(np.uint8), _RIM_PX)
        ring = cv2.dilate(padded, np.ones((2 * _RIM_PX + 1,) * 2, np.uint8)) > padded
        rows, columns = np.nonzero(ring)
        rows, columns = rows + region.y0 - _RIM_PX, columns + region.x0 - _RIM_PX
        inside = (rows >= 0) & (rows < self.height) & (columns >= 0) & (columns < self.width)
        around = np.bincount(self.number_map[rows[inside], columns[inside]], minlength=len(self.regions) + 1)
        return float(around[1 + self.members(anchor)].max(initial=0)) / max(len(rows), 1)

    def members(self, category: int) -> NDArray[np.int64]:
        """Places of the regions of a category."""
        return np.flatnonzero(self.categories == category)

    def sole(self, category: int) -> int | None:
        """The place of the only region of a category, or ``None``."""
        members = self.members(category)
        return int(members[0]) if len(members) == 1 else None

    def noun(self, category: int) -> str:
        """The noun phrase of a category."""
        return taxonomy()[category].noun

    def distances(self, anchor: int, places: NDArray[np.int64]) -> NDArray[np.float64]:
        """Least distance from ``places`` to category ``anchor``, as a share of the tile's longer side."""
        if anchor not in self._fields:
            away = np.ones((self.height, self.width), np.uint8)
            for region in (self.regions[int(i)] for i in self.members(anchor)):
                away[region.window][region.crop] = 0
            self._fields[anchor] = cv2.distanceTransform(away, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        field, side = self._fields[anchor], max(self.height, self.width)
        chosen = [self.regions[int(i)] for i in places]
        return np.asarray([float(field[r.window][r.crop].min()) / side for r in chosen])

    def boxes(self, places: NDArray[np.int64]) -> NDArray[np.float64]:
        """Tight rectangles x0, y0, x1, y1 in [0, 1], float64 ``[len(places), 4]``."""
        chosen = [self.regions[int(i)] for i in places]
        pixels = np.asarray([[r.x0, r.y0, r.x1, r.y1] for r in chosen], np.float64).reshape(-1, 4)
        return pixels / np.asarray([self.width, self.height, self.width, self.height])


def _elongation(region: Region) -> float:
    outlines, _ = cv2.findContours(region.crop.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    _, (a, b), _ = cv2.minAreaRect(np.concatenate(outlines))
    return (max(a, b) + 1.0) / (min(a, b) + 1.0)  # sides between pixel centres, so one more each
