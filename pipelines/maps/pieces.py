"""Objects of a mask: outlines a block, joined across blocks.

Regions are 4-connected. A block's outlines are polygons with whole pixel coordinates. Two pieces that meet at
a block's edge along a pixel or more are one object; those that touch at a corner are two, as inside a block.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rasterio.features import shapes
from rasterio.transform import Affine
from scipy import ndimage

from pipelines.maps.blend import NOT_COMPUTED, Mask
from pipelines.maps.grid import Rect
from pipelines.storage.libraries import library

#: In a border: no piece, and a pixel about which nothing is known.
NONE, UNKNOWN = 0, -1
_SIDES = ("top", "bottom", "left", "right")


@dataclass(frozen=True)
class Piece:
    """A region of a block's mask.

    Attributes:
        label: its number in the block, from 1.
        row: of its first pixel in the raster, row by row.
        column: of that pixel.
        area: pixels.
        score_sum: sum of its pixels' scores (0 to 250).
        score_max: the largest.
        cut: whether it ends at the raster's edge or where nothing is known.
        edge: whether it reaches the block's edge, so that it may go on.
        outline: polygon in pixels of the raster (x right, y down), WKB.
    """

    label: int
    row: int
    column: int
    area: int
    score_sum: int
    score_max: int
    cut: bool
    edge: bool
    outline: bytes


@dataclass(frozen=True)
class Borders:
    """Labels of a block's outermost pixels, int32 ``[w]`` (top and bottom) and ``[h]`` (left and right)."""

    top: NDArray[np.int32]
    bottom: NDArray[np.int32]
    left: NDArray[np.int32]
    right: NDArray[np.int32]

    def to_bytes(self) -> bytes:
        """For :meth:`from_bytes`."""
        parts = [getattr(self, side).astype("<i4") for side in _SIDES]
        lengths = np.asarray([len(part) for part in parts], "<i4")
        return b"".join(part.tobytes() for part in (lengths, *parts))

    @staticmethod
    def from_bytes(data: bytes) -> "Borders":
        """The inverse of :meth:`to_bytes`."""
        numbers = np.frombuffer(data, "<i4")
        ends = 4 + np.cumsum(numbers[:4])
        top, bottom, left, right, _ = np.split(numbers, [4, *ends])[1:]
        return Borders(top, bottom, left, right)


def find_pieces(mask: Mask, score: Mask, block: Rect, raster: Rect) -> tuple[list[Piece], Borders]:
    """The regions of a block.

    Args:
        mask: 0, 1, 254, 255, uint8 ``[h, w]``.
        score: 0 to 250 where the mask is 0 or 1.
        block: where it lies.
        raster: the whole.
    """
    labels, count = ndimage.label(mask == 1)
    labels = labels.astype(np.int32)
    borders = _borders(labels, mask >= NOT_COMPUTED)
    if not count:
        return [], borders
    inside = np.flatnonzero(labels)
    numbers, values = labels.ravel()[inside], score.ravel()[inside].astype(np.int64)
    area = np.bincount(numbers, minlength=count + 1)
    sums = np.rint(np.bincount(numbers, values, minlength=count + 1)).astype(np.int64)
    largest = np.zeros(count + 1, np.int64)
    np.maximum.at(largest, numbers, values)
    first = np.empty(count + 1, np.int64)
    first[numbers[::-1]] = inside[::-1]  # of equal labels the last one stays, the first of the block
    cut = _touching(labels, ndimage.binary_dilation(mask >= NOT_COMPUTED), count)
    for side, outer in zip(_SIDES, _outer(block, raster), strict=True):
        if outer:
            cut[np.maximum(getattr(borders, side), 0)] = True
    edge = np.zeros(count + 1, bool)
    for side, outer in zip(_SIDES, _outer(block, raster), strict=True):
        if not outer:
            edge[np.maximum(getattr(borders, side), 0)] = True
    outlines = _outlines(labels, block)
    rows, columns = first // block.width + block.top, first % block.width + block.left
    return [
        Piece(
            label,
            int(rows[label]),
            int(columns[label]),
            int(area[label]),
            int(sums[label]),
            int(largest[label]),
            bool(cut[label]),
            bool(edge[label]),
            outlines[label],
        )
        for label in range(1, count + 1)
    ], borders


def _outer(block: Rect, raster: Rect) -> tuple[bool, bool, bool, bool]:
    """Which of a block's sides are the raster's."""
    return (
        block.top == raster.top,
        block.bottom == raster.bottom,
        block.left == raster.left,
        block.right == raster.right,
    )


def _borders(labels: NDArray[np.int32], unknown: NDArray[np.bool_]) -> Borders:
    told = np.where(unknown, UNKNOWN, labels).astype(np.int32)
    return Borders(told[0].copy(), told[-1].copy(), told[:, 0].copy(), told[:, -1].copy())


def _touching(labels: NDArray[np.int32], near: NDArray[np.bool_], count: int) -> NDArray[np.bool_]:
    found = np.zeros(count + 1, bool)
    found[labels[near]] = True
    return found


def _outlines(labels: NDArray[np.int32], block: Rect) -> dict[int, bytes]:
    shapely = library("shapely")
    at = Affine.translation(block.left, block.top)
    found = {}
    for shape, label in shapes(labels, mask=labels > 0, connectivity=4, transform=at):
        rings = shape["coordinates"]
        found[int(label)] = shapely.to_wkb(shapely.Polygon(rings[0], rings[1:]))
    return found


class Groups:
    """Union-find over pieces, by any key that can be ordered."""

    def __init__(self) -> None:
        self._above: dict[tuple[int, int], tuple[int, int]] = {}

    def find(self, key: tuple[int, int]) -> tuple[int, int]:
        """The key that stands for the group of a piece."""
        top = key
        while (above := self._above.get(top, top)) != top:
            top = above
        while key != top:
            self._above[key], key = top, self._above.get(key, key)
        return top

    def join(self, one: tuple[int, int], two: tuple[int, int]) -> None:
        """Makes the groups of two pieces one."""
        low, high = sorted((self.find(one), self.find(two)))
        if low != high:
            self._above[high] = low


def neighbours(
    one: NDArray[np.int32], two: NDArray[np.int32]
) -> tuple[set[tuple[int, int]], set[int], set[int]]:
    """What two borders that lie against each other say.

    Returns:
        Pairs of labels that meet along a pixel; labels of the first, and of the second, that end where the
        other block knows nothing.
    """
    both = (one > 0) & (two > 0)
    pairs = {(int(a), int(b)) for a, b in np.unique(np.stack([one[both], two[both]], 1), axis=0)}
    first = {int(a) for a in np.unique(one[(one > 0) & (two == UNKNOWN)])}
    second = {int(b) for b in np.unique(two[(two > 0) & (one == UNKNOWN)])}
    return pairs, first, second


def joined(outlines: Iterable[bytes]) -> bytes:
    """Polygons that meet along edges as one polygon, WKB."""
    shapely = library("shapely")
    return bytes(shapely.to_wkb(shapely.union_all(shapely.from_wkb(list(outlines)))))


def canonical(outlines: NDArray[np.object_]) -> NDArray[np.object_]:
    """The one form of polygons along pixel edges: corners alone, rings and their starts in a fixed order.

    Pieces that were joined have corners where blocks meet. Those lie on straight edges and go; the rest does
    not depend on blocks.
    """
    shapely = library("shapely")
    # A ring that starts at its lowest corner starts at a real one, which the simplification keeps.
    corners = shapely.simplify(shapely.normalize(outlines), 0, preserve_topology=False)
    return np.asarray(shapely.normalize(corners))
