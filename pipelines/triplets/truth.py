"""The forms in which data sets keep a target's mask, each read to uint8 ``[H, W]`` of 0 and 1."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from pipelines.store.record import BadRecord, decode_mask
from pipelines.triplets.folder import Folder

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
    """An image file; whatever is not 0 (in any channel) is foreground."""

    file: str

    def read(self, folder: Folder, height: int, width: int) -> Mask:
        """See :class:`Truth`."""
        pixels = decode(folder.read(self.file), cv2.IMREAD_UNCHANGED)
        if pixels is None:
            raise BadRecord("unreadable_mask", f"{self.file} is no complete image file")
        _check_size(pixels, height, width, self.file)
        nonzero = pixels != 0
        return np.ascontiguousarray(nonzero.any(-1) if nonzero.ndim == 3 else nonzero, dtype=np.uint8)

    def files(self) -> Sequence[str]:
        """See :class:`Truth`."""
        return (self.file,)


@dataclass(frozen=True)
class Segments:
    """COCO's ``segmentation``: a list of compressed RLEs or polygons, or one RLE; their union is meant."""

    segments: Any

    def read(self, folder: Folder, height: int, width: int) -> Mask:
        """See :class:`Truth`."""
        parts = [self.segments] if isinstance(self.segments, dict) else self.segments
        if not isinstance(parts, list | tuple):
            raise BadRecord("unreadable_mask", f"a segmentation of type {type(parts).__name__}")
        mask = np.zeros((height, width), np.uint8)
        for part in parts:
            np.bitwise_or(mask, self._one(part, height, width), out=mask)
        return mask

    @staticmethod
    def _one(part: Any, height: int, width: int) -> Mask:
        if isinstance(part, dict) and isinstance(part.get("counts"), str):
            return decode_mask(part, height, width)
        try:
            rle = coco_mask.frPyObjects(part if isinstance(part, dict) else [part], height, width)
            runs = rle if isinstance(rle, list) else [rle]
            _check_size(np.empty(runs[0]["size"]), height, width, "the segmentation")
            layers = np.asarray(coco_mask.decode(runs))  # [H, W, segments]
        except BadRecord:
            raise
        except Exception as error:  # pycocotools raises bare Exception
            raise BadRecord("unreadable_mask", f"no COCO segmentation: {error}") from error
        return np.asarray(layers.any(axis=-1), dtype=np.uint8)

    def files(self) -> Sequence[str]:
        """See :class:`Truth`."""
        return ()


@dataclass(frozen=True)
class FilledBox:
    """An upright box in pixels, ends out; parts outside the image are cut off."""

    x0: float
    y0: float
    x1: float
    y1: float

    def read(self, folder: Folder, height: int, width: int) -> Mask:
        """See :class:`Truth`."""
        mask = np.zeros((height, width), np.uint8)
        x0, y0 = max(round(self.x0), 0), max(round(self.y0), 0)
        mask[y0 : max(round(self.y1), y0 + 1), x0 : max(round(self.x1), x0 + 1)] = 1
        return mask

    def files(self) -> Sequence[str]:
        """See :class:`Truth`."""
        return ()


def decode(data: bytes, flags: int) -> NDArray[Any] | None:
    """An image file of any kind that OpenCV knows (PNG, JPEG, TIFF), or ``None``."""
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error:
        return None


def decode_rgb(data: bytes, file: str) -> NDArray[np.uint8]:
    """An image file as uint8 RGB ``[H, W, 3]``, in the file's own orientation.

    Raises:
        BadRecord: ``unreadable_image``.
    """
    pixels = decode(data, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        raise BadRecord("unreadable_image", f"{file}: {len(data)} bytes that are no complete image")
    return pixels


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


def _check_size(pixels: NDArray[Any], height: int, width: int, what: str) -> None:
    if pixels.shape[:2] != (height, width):
        raise BadRecord("mask_size", f"{what} is {pixels.shape[:2]}, its image {(height, width)}")
