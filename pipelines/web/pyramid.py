"""A picture at full size and at halves of it, read by windows: memory does not follow a large raster."""

import threading

import cv2
import numpy as np
from numpy.typing import NDArray

from pipelines.maps.grid import Rect
from pipelines.maps.raster import MapRaster
from pipelines.pictures.colour import Shown, chosen_bands
from pipelines.pictures.georeference import Georeference, georeference_of
from pipelines.pictures.picture import Picture, limits_of, open_picture
from pipelines.pictures.rasters import BY_PARTS, ArrayRaster, Flipped, Raster
from pipelines.pictures.remote import Where
from pipelines.pictures.turn import SOUTH_UP, UPRIGHT
from unigeoseg.errors import UserError

#: Side of a tile in pixels.
TILE = 256
#: Pictures of no more pixels are held whole; so many are given to the model at once.
WHOLE = 16_777_216
#: Pictures that cannot be read by parts are held up to this, as ``predict`` takes them.
_MOST = 178_956_970
#: Levels of a large raster are held from the first on whose sides are no longer.
_COARSE = 4096
#: Pixels that are read at once where a level is made of the finest one.
_STRIP = 16_777_216

Pixels = NDArray[np.uint8]


class Pyramid:
    """A picture by levels: level n has half the side of level n - 1, rounded up.

    Args:
        picture: opened.
        source: its file, of which coarser levels are read; ``None``: it is in memory.
        name: for messages.

    Raises:
        UserError: it is too large to be held, and cannot be read by parts.
    """

    def __init__(self, picture: Picture, source: Where | None, name: str) -> None:
        self.height, self.width = picture.height, picture.width
        self.place: Georeference | None = georeference_of(picture)
        self._picture, self._source, self._name = picture, source, name
        self._lock, self._building = threading.Lock(), threading.RLock()
        self._arrays: dict[int, Pixels] = {}
        self._rasters: dict[int, Raster] = {0: picture.raster}
        parts = (
            source is not None
            and picture.file is not None
            and picture.file.kind in BY_PARTS
            and picture.turn in (UPRIGHT, SOUTH_UP)
        )
        pixels = self.height * self.width
        if not parts and pixels > _MOST:
            raise UserError(
                f"{name} has {self.width}x{self.height} pixels in a form that cannot be read by parts: make "
                f"a tiled GeoTIFF of it (gdal_translate -co TILED=YES {name} tiled.tif)"
            )
        self._first = 0 if pixels <= WHOLE or not parts else self._coarse()

    @classmethod
    def of_pixels(cls, pixels: Pixels, name: str) -> "Pyramid":
        """Of uint8 RGB ``[H, W, 3]`` in memory."""
        return cls(Picture(ArrayRaster(pixels)), None, name)

    @classmethod
    def open(cls, where: Where, name: str) -> "Pyramid":
        """Of a file, by the rules of ``docs/files.md``.

        Raises:
            UserError: it is no picture that is read, damaged, or too large.
        """
        return cls(open_picture(where, name=name), where, name)

    @property
    def nbytes(self) -> int:
        """Bytes that it holds, or may come to hold."""
        height, width = self.size(self._first)
        return 4 * height * width

    @property
    def depth(self) -> int:
        """Number of levels; the last one is a single tile."""
        level = 0
        while max(self.size(level)) > TILE:
            level += 1
        return level + 1

    def size(self, level: int) -> tuple[int, int]:
        """Height and width of a level."""
        side = 1 << level
        return -(-self.height // side), -(-self.width // side)

    def tile(self, level: int, row: int, column: int) -> Pixels | None:
        """A tile, uint8 ``[h, w, 3]`` of at most 256 pixels a side; ``None`` where there is none."""
        if not 0 <= level < self.depth or row < 0 or column < 0:
            return None
        height, width = self.size(level)
        part = Rect(row * TILE, column * TILE, (row + 1) * TILE, (column + 1) * TILE)
        part = part.cut(Rect(0, 0, height, width))
        return self.read(level, part) if part.height > 0 and part.width > 0 else None

    def fitting(self, window: Rect) -> tuple[int, Rect]:
        """The finest level at which a window is no more than the model is given, and the window there."""
        level = 0
        while (window.height >> level) * (window.width >> level) > WHOLE:
            level += 1
        side = 1 << level
        height, width = self.size(level)
        part = Rect(
            window.top // side, window.left // side, -(-window.bottom // side), -(-window.right // side)
        )
        return level, part.cut(Rect(0, 0, height, width))

    def read(self, level: int, part: Rect) -> Pixels:
        """A part of a level, uint8 ``[h, w, 3]``.

        Raises:
            UserError: the file is damaged there.
        """
        if level >= self._first:
            return np.ascontiguousarray(self._array(level)[part.rows, part.columns])
        return self._rows(level, part)

    def _coarse(self) -> int:
        level = 0
        while max(self.size(level)) > _COARSE:
            level += 1
        return level

    def _array(self, level: int) -> Pixels:
        """A whole level, held."""
        with self._building:
            if level not in self._arrays:
                height, width = self.size(level)
                if level > self._first:
                    self._arrays[level] = _shrunk(self._array(level - 1), (height, width), 2)
                else:
                    found = np.empty((height, width, 3), np.uint8)
                    strip = max(1, (_STRIP // self.width) >> level)
                    for top in range(0, height, strip):
                        part = Rect(top, 0, min(top + strip, height), width)
                        found[part.rows] = self._rows(level, part)
                    self._arrays[level] = found
            return self._arrays[level]

    def _rows(self, level: int, part: Rect) -> Pixels:
        """A part of a level, read from the file's overviews where it has any, else of all its pixels."""
        with self._lock:
            raster = self._raster(level)
            if raster is not None:
                return np.ascontiguousarray(raster.rows(part.top, part.bottom, part.columns))
            side = 1 << level
            whole = Rect(0, 0, self.height, self.width)
            finest = Rect(part.top * side, part.left * side, part.bottom * side, part.right * side).cut(whole)
            pixels = self._rasters[0].rows(finest.top, finest.bottom, finest.columns)
        return _shrunk(np.ascontiguousarray(pixels), (part.height, part.width), side)

    def _raster(self, level: int) -> Raster | None:
        """What gives the rows of a level; ``None`` where they are made of the finest one's."""
        if level not in self._rasters:
            picture, source = self._picture, self._source
            if source is None or picture.file is None or not picture.file.data.overviews(1):
                return None
            file = MapRaster(source, self._name, None, None)
            bands = chosen_bands(file, None)
            limits = limits_of(file, bands, "auto")
            file.resize(*self.size(level))
            shown: Raster = Shown(file, bands, limits)
            self._rasters[level] = Flipped(shown) if picture.turn == SOUTH_UP else shown
        return self._rasters[level]


def _shrunk(pixels: Pixels, size: tuple[int, int], side: int) -> Pixels:
    """Means of squares of pixels; what is missing at the far edges is as the pixels beside it."""
    height, width = size
    missing = ((0, height * side - pixels.shape[0]), (0, width * side - pixels.shape[1]), (0, 0))
    if missing[0][1] or missing[1][1]:
        pixels = np.pad(pixels, missing, mode="edge")
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
