"""Orientations 1 to 8 of EXIF (CIPA DC-008): which way a stored picture is turned to be seen.

A raster whose rows run from south to north is turned by orientation 4, upside down.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

UPRIGHT = 1
SOUTH_UP = 4
#: Orientations that swap height and width.
_SIDEWAYS = (5, 6, 7, 8)


def turned_size(height: int, width: int, turn: int) -> tuple[int, int]:
    """Height and width of a picture once it is turned."""
    return (width, height) if turn in _SIDEWAYS else (height, width)


def turn_pixels(pixels: NDArray[Any], turn: int) -> NDArray[Any]:
    """An array ``[H, W, ...]`` as stored, turned to be seen."""
    if turn in _SIDEWAYS:
        pixels = np.swapaxes(pixels, 0, 1)  # 5: mirrored at the diagonal
    if turn in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if turn in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def turn_points(points: NDArray[np.float64], height: float, width: float, turn: int) -> NDArray[np.float64]:
    """Points ``[N, 2]`` x, y of a stored picture of this size, where they are once it is turned."""
    x, y = points[:, 0], points[:, 1]
    if turn in _SIDEWAYS:
        x, y, width, height = y, x, height, width
    if turn in (2, 3, 6, 7):
        x = width - x
    if turn in (3, 4, 7, 8):
        y = height - y
    return np.stack([x, y], axis=1)
