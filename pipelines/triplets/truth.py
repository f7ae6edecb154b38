"""The forms in which data sets keep a target's mask, each read to uint8 ``[H, W]`` of 0 and 1."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from pipelines.labels.shapes import segmentation_mask
from pipelines.pictures.errors import UnusableImage
from pipelines.pictures.masks import read_truth
from pipelines.pictures.picture import USUAL, Picture, Rules, open_picture
from pipelines.pictures.rasters import ArrayRaster
from pipelines.pictures.turn import UPRIGHT, turn_pixels, turned_size
from pipelines.store.record import BadRecord
from pipelines.store.segmentation import parse_segmentation
from pipelines.triplets.folder import Folder

#: How far the size of runs may be from their picture's, where they are stretched.
_STRETCH = 0.05


Mask = NDArray[np.uint8]


class Truth(Protocol):
    """A mask that is not read yet."""

    def read(self, folder: Folder, height: int, width: int) -> Mask:
        """The mask of an image of this size.

        Raises:
            BadRecord: ``unreadable_mask`` or ``mask_size``.
        """
        ...

    def files(self) -> Sequence[str]:
        """The files that it needs, relative to the data set's folder."""
        ...


@dataclass(frozen=True)
class MaskFile:
    """An image file; what it means is told by :func:`pipelines.pictures.masks.read_truth`."""

    file: str

    def read(self, folder: Folder, height: int, width: int) -> Mask:
        """See :class:`Truth`."""
        try:
            mask = read_truth(folder.read(self.file), self.file)
        except UnusableImage as error:
            raise BadRecord(error.reason, f"{self.file}: {error.detail}") from error
        _check_size(mask.shape, height, width, self.file)
        return mask

    def files(self) -> Sequence[str]:
        """See :class:`Truth`."""
        return (self.file,)


@dataclass(frozen=True)
class Segments:
    """COCO's ``segmentation`` in any of its forms; the union of its parts is meant.

    Attributes:
        segments: as the file has it.
        stretches: whether runs made for a picture of nearly the same size are stretched to the picture.
    """

    segments: Any
    stretches: bool = False

    def read(self, folder: Folder, height: int, width: int) -> Mask:
        """See :class:`Truth`."""
        own = self.own_size(height, width)
        if own is None:
            return segmentation_mask(parse_segmentation(self.segments, height, width), height, width)
        mask = segmentation_mask(parse_segmentation(self.segments, *own), *own)
        return np.asarray(cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8)

    def own_size(self, height: int, width: int) -> tuple[int, int] | None:
        """Height and width of the runs where they are stretched to a picture of this size."""
        first = self.segments[0] if isinstance(self.segments, list) and self.segments else self.segments
        if not self.stretches or not isinstance(first, dict):
            return None
        try:
            own = int(first["size"][0]), int(first["size"][1])
        except (LookupError, TypeError, ValueError):
            return None
        near = all(abs(a - b) <= _STRETCH * b for a, b in zip(own, (height, width), strict=True))
        return own if near and own != (height, width) else None

    def files(self) -> Sequence[str]:
        """See :class:`Truth`."""
        return ()


@dataclass(frozen=True)
class FilledBox:
    """An upright box in pixels, ends out and in any order; parts outside the image are cut off.

    Attributes:
        edges: x0, y0, x1, y1 as the file writes them.
    """

    edges: tuple[str, ...]

    def read(self, folder: Folder, height: int, width: int) -> Mask:
        """See :class:`Truth`.

        Raises:
            BadRecord: ``coordinates``: no numbers, or no area.
        """
        try:
            x0, y0, x1, y1 = (float(edge) for edge in self.edges)
        except ValueError as error:
            raise BadRecord("coordinates", f"the box {', '.join(self.edges)} is not four numbers") from error
        (x0, x1), (y0, y1) = sorted((x0, x1)), sorted((y0, y1))
        if not (math.isfinite(x0 + y0 + x1 + y1) and x1 > x0 and y1 > y0):
            raise BadRecord("coordinates", f"the box {', '.join(self.edges)} has no area")
        mask = np.zeros((height, width), np.uint8)
        left, top = max(round(x0), 0), max(round(y0), 0)
        mask[top : max(round(y1), top + 1, 0), left : max(round(x1), left + 1, 0)] = 1
        if x1 <= 0 or y1 <= 0 or not mask.any():
            raise BadRecord("coordinates", f"the box {', '.join(self.edges)} lies outside")
        return mask

    def files(self) -> Sequence[str]:
        """See :class:`Truth`."""
        return ()


def decode_picture(data: bytes, file: str, rules: Rules = USUAL) -> Picture:
    """An image file, by the same rules as in builds.

    Raises:
        BadRecord: ``unreadable_image``.
    """
    try:
        picture = open_picture(data, rules, name=file)
        picture.raster = ArrayRaster(picture.pixels())  # what is damaged shows here, not later
        return picture
    except UnusableImage as error:
        raise BadRecord("unreadable_image", f"{file}: {error.detail}") from error


def read_upright(truth: Truth, folder: Folder, height: int, width: int, turn: int) -> Mask:
    """The mask of an upright picture: one that was drawn on the stored picture is turned with it.

    Raises:
        BadRecord: as :meth:`Truth.read`.
    """
    stored = turned_size(height, width, turn)
    try:
        return turn_pixels(truth.read(folder, *stored), turn)
    except BadRecord as error:
        if error.reason != "mask_size" or stored == (height, width):
            raise
        return truth.read(folder, height, width)


def stretched_from(truth: Truth, height: int, width: int, turn: int = UPRIGHT) -> tuple[int, int] | None:
    """Height and width of a mask that :func:`read_upright` stretches to an upright picture; else ``None``."""
    if not isinstance(truth, Segments):
        return None
    return truth.own_size(*turned_size(height, width, turn))


def interior_point(mask: Mask) -> tuple[float, float]:
    """The pixel deepest inside the mask, as (x, y) in [0, 1]; the first in raster order among equals.

    Raises:
        BadRecord: ``empty_mask``.
    """
    if not mask.any():
        raise BadRecord("empty_mask", "a point prompt needs a target")
    padded = np.pad(mask, 1)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    y, x = divmod(int(depth.argmax()), mask.shape[1])
    return (x + 0.5) / mask.shape[1], (y + 0.5) / mask.shape[0]


def _check_size(size: tuple[int, ...], height: int, width: int, what: str) -> None:
    if size[:2] != (height, width):
        raise BadRecord("mask_size", f"{what} is {size[:2]}, its image {(height, width)}")
