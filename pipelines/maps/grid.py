"""Where windows and blocks lie on a raster, and what a window's pixels weigh.

Windows have the model's side S and overlap by a quarter. The grid is anchored at the raster's first pixel;
the last windows reach past the far edges. Over an overlap of n pixels the weights of two neighbours are 2i+1
and 2n-1-2i: they add up to 2n at every pixel, which is what a single window weighs elsewhere. In two
dimensions weights are products, and all windows together weigh (2n)^2 everywhere. All are integers: no
order and no cut into blocks changes a sum.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Strides on a side of a block, and those of windows up to :data:`SMALL` pixels. Windows at a block's edges
#: are computed by both: a sixth more work with 12 strides, a twelfth with 24, at four times the memory.
BLOCK, SMALL_BLOCK = 12, 24
SMALL = 256


@dataclass(frozen=True)
class Rect:
    """Rows ``top`` to ``bottom`` and columns ``left`` to ``right``, the ends left out."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        """Pixels."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Pixels."""
        return self.right - self.left

    @property
    def rows(self) -> slice:
        """Of an array of the raster."""
        return slice(self.top, self.bottom)

    @property
    def columns(self) -> slice:
        """Of an array of the raster."""
        return slice(self.left, self.right)

    def cut(self, other: "Rect") -> "Rect":
        """What both cover; empty or negative where they do not meet."""
        return Rect(
            max(self.top, other.top),
            max(self.left, other.left),
            min(self.bottom, other.bottom),
            min(self.right, other.right),
        )

    def inside(self, other: "Rect") -> tuple[slice, slice]:
        """Rows and columns of this in an array that holds ``other``."""
        return (
            slice(self.top - other.top, self.bottom - other.top),
            slice(self.left - other.left, self.right - other.left),
        )


def block_strides(size: int) -> int:
    """Strides on a side of a block, for windows of a side of ``size`` pixels."""
    return SMALL_BLOCK if size <= SMALL else BLOCK


@dataclass(frozen=True)
class Grid:
    """The windows and blocks of a raster.

    Attributes:
        height: of the raster, in pixels.
        width: of the raster.
        size: side S of a window.
        strides: of a block.
    """

    height: int
    width: int
    size: int
    strides: int = BLOCK

    @property
    def overlap(self) -> int:
        """Pixels that neighbours share: a quarter."""
        return self.size // 4

    @property
    def stride(self) -> int:
        """Pixels from a window to the next."""
        return self.size - self.overlap

    @property
    def whole(self) -> Rect:
        """The raster."""
        return Rect(0, 0, self.height, self.width)

    @property
    def single(self) -> bool:
        """Whether one window holds the raster; it is then seen as ``predict`` sees it."""
        return self.height <= self.size and self.width <= self.size

    @property
    def shape(self) -> tuple[int, int]:
        """Windows down and across."""
        return self._count(self.height), self._count(self.width)

    @property
    def blocks(self) -> tuple[int, int]:
        """Blocks down and across."""
        side = self.strides * self.stride
        if self.single:
            return 1, 1
        return -(-self.height // side), -(-self.width // side)

    def _count(self, length: int) -> int:
        return 1 if length <= self.size else -(-(length - self.overlap) // self.stride)

    def window(self, row: int, column: int) -> Rect:
        """A window; it may reach past the far edges."""
        top, left = row * self.stride, column * self.stride
        return Rect(top, left, top + self.size, left + self.size)

    def block(self, row: int, column: int) -> Rect:
        """The part of the raster that a block fills."""
        if self.single:
            return self.whole
        side = self.strides * self.stride
        return Rect(row * side, column * side, (row + 1) * side, (column + 1) * side).cut(self.whole)

    def block_numbers(self) -> Iterator[tuple[int, int]]:
        """Row and column of each block."""
        down, across = self.blocks
        return ((row, column) for row in range(down) for column in range(across))

    def windows_of(self, block: Rect) -> tuple[range, range]:
        """Rows and columns of the windows that reach into a part of the raster."""
        rows, columns = self.shape
        return (
            self._reaching(block.top, block.bottom, rows),
            self._reaching(block.left, block.right, columns),
        )

    def _reaching(self, start: int, stop: int, count: int) -> range:
        first = max(0, -(-(start - self.size + 1) // self.stride))
        return range(first, min(count, -(-stop // self.stride)))

    def owns(self, block: tuple[int, int], window: tuple[int, int]) -> bool:
        """Whether a window is counted with a block; each one is with exactly one."""
        blocks = self.blocks
        return all(
            min(at // self.strides, count - 1) == number
            for at, count, number in zip(window, blocks, block, strict=True)
        )

    def ramp(self, number: int, count: int) -> NDArray[np.int64]:
        """Weights ``[S]`` of a window's rows or columns, the ``number``-th of ``count``; flat at borders."""
        n = self.overlap
        weights = np.full(self.size, max(2 * n, 1), np.int64)
        rise = 2 * np.arange(n, dtype=np.int64) + 1
        if number > 0:
            weights[:n] = rise
        if number < count - 1:
            weights[self.size - n :] = rise[::-1]
        return weights


def reflected(start: int, stop: int, length: int) -> NDArray[np.int64]:
    """Which of ``length`` pixels stand at places ``start`` to ``stop``, mirrored at both ends."""
    places = np.arange(start, stop)
    if length == 1:
        return np.zeros(len(places), np.int64)
    period = 2 * (length - 1)
    places = places % period
    return np.asarray(np.minimum(places, period - places), np.int64)
