"""What the writer knows of a tile: where its regions lie, how large they are, how far apart."""

from collections.abc import Callable, Hashable, Sequence
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from pipelines.labels.regions import Region
from pipelines.labels.taxonomy import taxonomy

#: Width of the rim around a region in which its surroundings are looked up.
_RIM_PX = 3
_RIM = np.ones((2 * _RIM_PX + 1,) * 2, np.uint8)


class TileFacts:
    """Geometry of all regions of a tile (also of those that may not become samples).

    What was measured once is kept: dozens of predicates ask for the same.

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
        self._members: dict[int, NDArray[np.int64]] = {}
        self._fields: dict[int, NDArray[np.float32]] = {}
        self._distances: dict[int, dict[int, float]] = {}
        self._rims: dict[int, tuple[NDArray[np.int64], int]] = {}
        self._truths: dict[Hashable, NDArray[np.int8]] = {}

    def once(self, key: Hashable, truth: Callable[[], NDArray[np.int8]]) -> NDArray[np.int8]:
        """What is true of every region, int8 ``[N]``: found when it is first asked for under ``key``."""
        if key not in self._truths:
            self._truths[key] = truth()
        return self._truths[key]

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
        numbers = 1 + self.members(anchor)
        rims = [self._rim(int(i)) for i in places]
        return np.asarray([float(around[numbers].max(initial=0)) / max(size, 1) for around, size in rims])

    def _rim(self, place: int) -> tuple[NDArray[np.int64], int]:
        """How much of a region's rim each region covers, by number, and how large the rim is; in pixels."""
        if place not in self._rims:
            region, (h, w) = self.regions[place], self.regions[place].crop.shape
            padded = np.zeros((h + 2 * _RIM_PX, w + 2 * _RIM_PX), np.uint8)
            padded[_RIM_PX : _RIM_PX + h, _RIM_PX : _RIM_PX + w] = region.crop
            ring = cv2.dilate(padded, _RIM) > padded
            top, left = region.y0 - _RIM_PX, region.x0 - _RIM_PX
            inside = ring[max(-top, 0) : self.height - top, max(-left, 0) : self.width - left]
            there = self.number_map[max(top, 0) : region.y1 + _RIM_PX, max(left, 0) : region.x1 + _RIM_PX]
            around = np.bincount(there[inside], minlength=len(self.regions) + 1)
            self._rims[place] = around, int(np.count_nonzero(ring))
        return self._rims[place]

    def members(self, category: int) -> NDArray[np.int64]:
        """Places of the regions of a category; not to be written to."""
        if category not in self._members:
            self._members[category] = np.flatnonzero(self.categories == category)
        return self._members[category]

    def sole(self, category: int) -> int | None:
        """The place of the only region of a category, or ``None``."""
        members = self.members(category)
        return int(members[0]) if len(members) == 1 else None

    def noun(self, category: int) -> str:
        """The noun phrase of a category."""
        return taxonomy()[category].noun

    def distances(self, anchor: int, places: NDArray[np.int64]) -> NDArray[np.float64]:
        """Least distance from ``places`` to category ``anchor``, as a share of the tile's longer side."""
        known, side = self._distances.setdefault(anchor, {}), max(self.height, self.width)
        for place in {int(i) for i in places} - known.keys():
            region = self.regions[place]
            known[place] = float(self._field(anchor)[region.window][region.crop].min()) / side
        return np.asarray([known[int(i)] for i in places])

    def _field(self, anchor: int) -> NDArray[np.float32]:
        """Distance of each pixel to category ``anchor`` in pixels, float32 ``[H, W]``."""
        if anchor not in self._fields:
            away = np.ones((self.height, self.width), np.uint8)
            for region in (self.regions[int(i)] for i in self.members(anchor)):
                away[region.window][region.crop] = 0
            self._fields[anchor] = cv2.distanceTransform(away, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        return self._fields[anchor]

    def boxes(self, places: NDArray[np.int64]) -> NDArray[np.float64]:
        """Tight rectangles x0, y0, x1, y1 in [0, 1], float64 ``[len(places), 4]``."""
        return self.all_boxes[places]

    @cached_property
    def all_boxes(self) -> NDArray[np.float64]:
        """Those of all regions, float64 ``[N, 4]``."""
        pixels = np.asarray([[r.x0, r.y0, r.x1, r.y1] for r in self.regions], np.float64).reshape(-1, 4)
        return pixels / np.asarray([self.width, self.height, self.width, self.height])


def _elongation(region: Region) -> float:
    outlines, _ = cv2.findContours(region.crop.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    _, (a, b), _ = cv2.minAreaRect(np.concatenate(outlines))
    return (max(a, b) + 1.0) / (min(a, b) + 1.0)  # sides between pixel centres, so one more each
