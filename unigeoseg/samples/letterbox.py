"""Letterbox geometry: an image of any shape in a square of side S, aspect ratio kept.

The released preprocessing: the long side becomes S, the other ``int(short * S / long)``, the rest is zero
padding on both sides (before normalisation); images are resized linearly, masks by nearest neighbour. Both
skip pixels where they shrink. ``smooth`` (the ``paper`` mode) averages areas instead: every pixel of the
source counts.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Letterbox:
    """Where an image of ``height`` x ``width`` pixels lies in a square of side ``size``.

    Attributes:
        inner_height: height of the resized image, in pixels of the square.
        inner_width: its width.
        top: first row that it covers.
        left: first column that it covers.
    """

    size: int
    height: int
    width: int
    inner_height: int
    inner_width: int
    top: int
    left: int

    @classmethod
    def fit(cls, height: int, width: int, size: int) -> "Letterbox":
        """The geometry for one image; a side never shrinks below one pixel."""
        if height >= width:
            inner_height, inner_width = size, max(1, int(width * size / height))
        else:
            inner_height, inner_width = max(1, int(height * size / width)), size
        top, left = (size - inner_height) // 2, (size - inner_width) // 2
        return cls(size, height, width, inner_height, inner_width, top, left)

    @property
    def rows(self) -> slice:
        """Rows of the square that the image covers."""
        return slice(self.top, self.top + self.inner_height)

    @property
    def columns(self) -> slice:
        """Columns of the square that the image covers."""
        return slice(self.left, self.left + self.inner_width)

    def point(self, x: float, y: float) -> tuple[float, float]:
        """Coordinates in [0, 1] of the image, as coordinates in [0, 1] of the square."""
        return (
            (self.left + x * self.inner_width) / self.size,
            (self.top + y * self.inner_height) / self.size,
        )


def _place(array: NDArray[Any], size: int, interpolation: int) -> NDArray[Any]:
    height, width = array.shape[:2]
    if height == width == size:
        return np.ascontiguousarray(array)
    box = Letterbox.fit(height, width, size)
    resized = cv2.resize(array, (box.inner_width, box.inner_height), interpolation=interpolation)
    square = np.zeros((size, size, *array.shape[2:]), dtype=array.dtype)
    square[box.rows, box.columns] = resized
    return square


def letterbox_image(image: NDArray[np.uint8], size: int, smooth: bool = False) -> NDArray[np.uint8]:
    """An RGB image uint8 ``[H, W, 3]`` as uint8 ``[size, size, 3]``, zeros around it.

    Args:
        image: of any size.
        size: side of the square.
        smooth: where it shrinks, a pixel is the mean of the area that it stands for.
    """
    shrinks = smooth and max(image.shape[:2]) > size
    return _place(image, size, cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def letterbox_mask(mask: NDArray[np.uint8], size: int, smooth: bool = False) -> NDArray[np.uint8]:
    """A mask of 0 and 1, uint8 ``[H, W]``, as uint8 ``[size, size]``, zeros around it.

    Args:
        mask: of any size.
        size: side of the square.
        smooth: where it shrinks, a pixel belongs to the mask when half of its area does. A region that would
            leave no such pixel keeps those that it covers most of, so that no target vanishes.
    """
    if not smooth or max(mask.shape) <= size:
        return _place(mask, size, cv2.INTER_NEAREST)
    shares = _place(mask * np.float32(1), size, cv2.INTER_AREA)
    least = min(0.5, float(shares.max()))
    return ((shares >= least) & (shares > 0)).astype(np.uint8)


def unletterbox(values: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """The inverse for a map ``[S, S]``: the part that the image covers, at ``[height, width]``.

    Floating-point maps (logits) are resized linearly, integer maps by nearest neighbour.
    """
    box = Letterbox.fit(height, width, values.shape[0])
    inner = np.ascontiguousarray(values[box.rows, box.columns])
    linear = np.issubdtype(values.dtype, np.floating)
    resized: NDArray[Any] = cv2.resize(
        inner, (width, height), interpolation=cv2.INTER_LINEAR if linear else cv2.INTER_NEAREST
    )
    return resized
