"""Objects whose pixels are given: polygons of several parts, with holes, and masks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
import rasterio.features
from numpy.typing import NDArray

from pipelines.labels.outlines import Outline, fault, signed_area, tight
from pipelines.labels.regions import Region
from pipelines.labels.tiling import Window
from pipelines.store.segmentation import Ring, Segmentation

#: How far a hole's corner may lie outside the part that it is in, in pixels: coordinates are often rounded.
_SLACK = 1.0


class Shape(Protocol):
    """A usable object of an image."""

    @property
    def category_id(self) -> int:
        """Of the taxonomy."""
        ...

    @property
    def exact(self) -> bool:
        """Whether its pixels are given; else a promptable model may find better ones."""
        ...

    @property
    def box(self) -> tuple[float, float, float, float]:
        """x0, y0, x1, y1 in pixels."""
        ...

    def draw(self, window: Window) -> Region | None:
        """Its pixels in a window; ``None`` without any."""
        ...


@dataclass(frozen=True)
class Polygons:
    """An object of one or more parts, each its outer ring and its holes."""

    category_id: int
    parts: tuple[tuple[Ring, ...], ...]
    exact: bool = True

    @property
    def box(self) -> tuple[float, float, float, float]:
        """x0, y0, x1, y1 of all parts."""
        corners = np.concatenate([part[0] for part in self.parts])
        (x0, y0), (x1, y1) = corners.min(0), corners.max(0)
        return float(x0), float(y0), float(x1), float(y1)

    def draw(self, window: Window) -> Region | None:
        """The pixels of a window whose centres lie inside; ``None`` without any."""
        x0, y0, x1, y1 = self.box
        left, top = max(int(np.floor(x0)), window.x), max(int(np.floor(y0)), window.y)
        right = min(int(np.ceil(x1)), window.x + window.width)
        bottom = min(int(np.ceil(y1)), window.y + window.height)
        if left >= right or top >= bottom:
            return None
        filled = fill(self.parts, bottom - top, right - left, left, top)
        return tight(self.category_id, filled, top - window.y, left - window.x)


@dataclass(frozen=True)
class Crop:
    """An object as a mask: bool ``[h, w]`` whose first pixel lies at (y, x) of the image."""

    category_id: int
    y: int
    x: int
    mask: NDArray[np.bool_]
    exact: bool = True

    @property
    def box(self) -> tuple[float, float, float, float]:
        """x0, y0, x1, y1 of the mask."""
        height, width = self.mask.shape
        return float(self.x), float(self.y), float(self.x + width), float(self.y + height)

    def draw(self, window: Window) -> Region | None:
        """The part in a window; ``None`` without a pixel there."""
        height, width = self.mask.shape
        top, left = max(self.y, window.y), max(self.x, window.x)
        bottom = min(self.y + height, window.y + window.height)
        right = min(self.x + width, window.x + window.width)
        if left >= right or top >= bottom:
            return None
        part = self.mask[top - self.y : bottom - self.y, left - self.x : right - self.x]
        return tight(self.category_id, part, top - window.y, left - window.x)


def shape_of(category_id: int, found: Segmentation, height: int, width: int) -> Polygons | Crop | None:
    """A segmentation as a shape of an image of this size; ``None`` if it has no pixel."""
    if found.mask is None:
        return Polygons(category_id, with_holes(found.rings))
    mask = found.mask.astype(bool)
    if found.rings:
        mask |= fill(with_holes(found.rings), height, width)
    region = tight(category_id, mask, 0, 0)
    return None if region is None else Crop(category_id, region.y0, region.x0, region.crop)


def shape_fault(shape: Shape, height: int, width: int) -> str | None:
    """Why a shape cannot be used: ``degenerate`` or ``outside``; else ``None``."""
    if isinstance(shape, Outline):
        return fault(shape.corners, height, width)
    if not isinstance(shape, Polygons):
        return None
    faults = [fault(part[0], height, width) for part in shape.parts]
    return None if None in faults else faults[0]


def segmentation_mask(found: Segmentation, height: int, width: int) -> NDArray[np.uint8]:
    """A segmentation at the image's size, uint8 0/1 ``[H, W]``."""
    filled = fill(with_holes(found.rings), height, width) if found.rings else np.zeros((height, width), bool)
    return (filled if found.mask is None else filled | (found.mask != 0)).astype(np.uint8)


def with_holes(rings: Sequence[Ring]) -> tuple[tuple[Ring, ...], ...]:
    """Rings sorted into parts with their holes.

    A hole turns the other way than the largest ring and lies inside a ring that turns as that one does. COCO
    itself knows no holes, but exporters write them so; rings that turn alike are a union.
    """
    sizes = [signed_area(ring) for ring in rings]
    outward = np.sign(sizes[int(np.abs(sizes).argmax())])
    outer = [n for n, size in enumerate(sizes) if size * outward >= 0]
    holes: dict[int, list[Ring]] = {n: [] for n in outer}
    alone = []
    for n in range(len(rings)):
        if n in holes:
            continue
        around = [m for m in outer if abs(sizes[m]) > abs(sizes[n]) and _inside(rings[n], rings[m])]
        if around:
            holes[min(around, key=lambda m: abs(sizes[m]))].append(rings[n])
        else:
            alone.append(rings[n])
    return tuple((rings[n], *holes[n]) for n in outer) + tuple((ring,) for ring in alone)


def _inside(ring: Ring, other: Ring) -> bool:
    contour = other.astype(np.float32)
    return all(cv2.pointPolygonTest(contour, (float(x), float(y)), True) >= -_SLACK for x, y in ring)


def fill(
    parts: Sequence[Sequence[Ring]], height: int, width: int, left: int = 0, top: int = 0
) -> NDArray[np.bool_]:
    """The pixels whose centres lie in any of the parts, bool ``[height, width]`` from (top, left) on."""
    shapes: list[tuple[dict[str, Any], int]] = []
    for part in parts:
        rings = [[(float(x) - left, float(y) - top) for x, y in ring] for ring in part]
        shapes.append(({"type": "Polygon", "coordinates": [[*ring, ring[0]] for ring in rings]}, 1))
    filled = rasterio.features.rasterize(shapes, out_shape=(height, width), dtype=np.uint8)
    return np.asarray(filled, bool)
