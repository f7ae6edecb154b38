"""Regions of a tile: connected components of a semantic mask, or the instances of an instance mask."""

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

BoolMask = NDArray[np.bool_]


@dataclass
class Region:
    """One region of a tile.

    Attributes:
        category_id: of the taxonomy.
        y0, x0, y1, x1: tight rectangle, half open, in pixels.
        crop: bool ``[y1-y0, x1-x0]``, the region inside its rectangle.
        colour: colour word, where the source knows it.
        mask_from: how the mask was made from a box, where it was.
    """

    category_id: int
    y0: int
    x0: int
    y1: int
    x1: int
    crop: BoolMask
    colour: str | None = None
    mask_from: str | None = None

    @property
    def area(self) -> int:
        """Pixels."""
        return int(np.count_nonzero(self.crop))

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the rectangle."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    def full(self, height: int, width: int) -> NDArray[np.uint8]:
        """The mask at tile size, uint8 0/1 ``[H, W]``."""
        mask = np.zeros((height, width), np.uint8)
        mask[self.window] = self.crop
        return mask


def split_semantic(labels: NDArray[np.int32], min_pixels: int) -> tuple[list[Region], int]:
    """8-connected components of each category.

    Args:
        labels: category ids ``[H, W]``, 0 ignored.
        min_pixels: smaller components are noise and left out.

    Returns:
        Regions ordered by category and then by first pixel, and how many were left out as noise.
    """
    categories = np.flatnonzero(np.bincount(labels.ravel())[1:]) + 1  # far quicker than np.unique
    whole = np.zeros(labels.shape, np.int32)
    counts = []
    for category in categories:
        count, parts = cv2.connectedComponents((labels == category).view(np.uint8), connectivity=8)
        counts.append(count - 1)
        whole += parts
    # All categories' components in one picture, numbered on from category to category: OpenCV's own
    # statistics take four times as long as its components.
    ends = np.cumsum(counts, dtype=np.int32)
    before = np.zeros(int(categories.max(initial=0)) + 1, np.int32)
    before[categories[1:]] = ends[:-1]
    whole += before[labels]
    large = np.flatnonzero(np.bincount(whole.ravel())[1:] >= min_pixels) + 1
    boxes = ndimage.find_objects(whole)
    owners = categories[np.searchsorted(ends, large)]
    regions = []
    for part, category in zip(large.tolist(), owners.tolist(), strict=True):
        y, x = boxes[part - 1]
        crop = whole[y, x] == part
        regions.append(Region(category, y.start, x.start, y.stop, x.stop, crop))
    return regions, sum(counts) - len(regions)


def split_instances(
    labels: NDArray[np.int32], instances: Mapping[int, int], colours: Mapping[int, str], min_pixels: int
) -> tuple[list[Region], int]:
    """One region an instance, whatever its connectivity; the same order and noise rule as for components."""
    regions, noise = [], 0
    boxes = {n: box for n, box in enumerate(ndimage.find_objects(labels), 1) if box is not None}
    for number in sorted(boxes, key=lambda n: (instances[n], n)):
        y, x = boxes[number]
        crop = labels[y, x] == number
        region = Region(instances[number], y.start, x.start, y.stop, x.stop, crop, colours.get(number))
        if region.area < min_pixels:
            noise += 1
            continue
        regions.append(region)
    return regions, noise


def isolated(region: Region, others: list[Region], radius: int) -> bool:
    """Whether no pixel of ``others`` lies within ``radius`` pixels (Euclidean) of the region."""
    y0, x0, y1, x1 = region.y0 - radius, region.x0 - radius, region.y1 + radius, region.x1 + radius
    near = [o for o in others if o.y0 < y1 and o.y1 > y0 and o.x0 < x1 and o.x1 > x0]
    if not near:
        return True
    away = np.ones((y1 - y0, x1 - x0), np.uint8)
    h, w = region.crop.shape
    away[radius : radius + h, radius : radius + w] = ~region.crop
    # Only what lies around the others' pixels matters, and of the region only what is as near to them.
    overlaps = [(max(o.y0, y0), max(o.x0, x0), min(o.y1, y1), min(o.x1, x1)) for o in near]
    top = max(min(o[0] for o in overlaps) - radius, y0)
    left = max(min(o[1] for o in overlaps) - radius, x0)
    bottom, right = max(o[2] for o in overlaps) + radius, max(o[3] for o in overlaps) + radius
    away = away[top - y0 : bottom - y0, left - x0 : right - x0]
    if away.all():  # the transform of a picture without a zero means nothing
        return True
    distance = cv2.distanceTransform(away, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    for other, (oy0, ox0, oy1, ox1) in zip(near, overlaps, strict=True):
        there = other.crop[oy0 - other.y0 : oy1 - other.y0, ox0 - other.x0 : ox1 - other.x0]
        if (distance[oy0 - top : oy1 - top, ox0 - left : ox1 - left][there] <= radius).any():
            return False
    return True
