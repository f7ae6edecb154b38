"""Rows of pixels of a file of any size."""

import io
import zlib
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import rasterio
import rasterio.errors
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.io import MemoryFile
from rasterio.windows import Window as FileWindow

from pipelines.pictures.errors import damage
from pipelines.pictures.remote import ByParts, Remote

Grid = NDArray[Any]


Source = Path | bytes | Remote

#: Formats whose files hold pixels themselves; others of GDAL's may name further files or servers.
_KINDS = {
    b"II*\0": "GTiff",
    b"MM\0*": "GTiff",
    b"II+\0": "GTiff",
    b"MM\0+": "GTiff",
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"\0\0\0\x0cjP": "JP2OpenJPEG",
    b"\xff\x4f\xff\x51": "JP2OpenJPEG",
    b"BM": "BMP",
    b"GIF8": "GIF",
}
#: Kinds that are always read by parts.
BY_PARTS = ("GTiff", "JP2OpenJPEG")
_CACHE_MB = 96
#: Files of no more bytes of pixels are read at once; the values are the same.
_SMALL = 50_000_000
_PREVIEW = 1024
_ROWS = 32


def kind_of(source: Source) -> str:
    """The kind of a file by its first bytes, as GDAL names it.

    Raises:
        OSError: there is no such file.
        ValueError: it is empty, or of no kind that is read.
    """
    head = _head(source)
    if not head:
        raise ValueError("the file is empty: not an image of a known kind")
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    for start, kind in _KINDS.items():
        if head.startswith(start):
            return kind
    raise ValueError("not an image of a known kind")


def fetched(source: Source) -> Source:
    """A remote file of a kind that is not read by parts as its bytes; all others as they are.

    Raises:
        OSError: there is no such file.
        ValueError: it is empty, or of no kind that is read.
    """
    if isinstance(source, Remote) and kind_of(source) not in BY_PARTS:
        return source.read()
    return source


def _head(source: Source) -> bytes:
    if isinstance(source, bytes):
        return source[:32]
    if isinstance(source, Remote):
        return source.read(32)
    with source.open("rb") as handle:
        return handle.read(32)


def png_depth(source: Source) -> int:
    """Bits a channel of a PNG file, from its header (PNG specification, IHDR)."""
    head = _head(source)
    return head[24] if len(head) > 24 else 0


def check_png(source: Path | bytes) -> None:
    """Refuses a PNG that is cut off or altered, which GDAL would fill with black: walks its chunks.

    Raises:
        ValueError: the last chunk is missing, or a checksum is wrong (PNG specification, section 5).
    """
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as handle:
        handle.seek(8)
        name = b""
        while name != b"IEND":
            head = handle.read(8)
            length, name = int.from_bytes(head[:4], "big"), head[4:]
            crc, left = zlib.crc32(name), length
            while left and (part := handle.read(min(left, 1 << 20))):
                crc, left = zlib.crc32(part, crc), left - len(part)
            end = handle.read(4)
            if left or len(end) < 4:
                raise ValueError("the file is cut off")
            if int.from_bytes(end, "big") != crc:
                raise ValueError(f"the checksum of its part {name.decode('latin-1')} is wrong")


#: Columns of rows.
ALL = slice(None)


class Raster(Protocol):
    """Rows of an image file."""

    height: int
    width: int

    def rows(self, start: int, stop: int, columns: slice = ALL) -> Grid:
        """``[stop - start, W]`` or ``[stop - start, W, C]``; only some columns where they are named.

        Raises:
            UnusableImage: the file is damaged there.
        """
        ...


class ArrayRaster:
    """An image that is in memory."""

    def __init__(self, pixels: Grid) -> None:
        self._pixels = pixels
        self.height, self.width = int(pixels.shape[0]), int(pixels.shape[1])

    def rows(self, start: int, stop: int, columns: slice = ALL) -> Grid:
        """A view."""
        return self._pixels[start:stop, columns]


class Flipped:
    """Rows from the last to the first."""

    def __init__(self, raster: Raster) -> None:
        self._raster, self.height, self.width = raster, raster.height, raster.width

    def rows(self, start: int, stop: int, columns: slice = ALL) -> Grid:
        """See :class:`Raster`."""
        return self._raster.rows(self.height - stop, self.height - start, columns)[::-1]


class FileRaster:
    """A file that rasterio reads; it is opened once and closed with the object.

    Args:
        source: the file, or its bytes.
        what: "image" or "mask", for messages.
        where: the file's name, for messages.
        kind: GDAL's name of its format; ``None``: by its first bytes, and only formats that hold their pixels
            themselves.
    """

    def __init__(self, source: Source, what: str, where: str, kind: str | None = None) -> None:
        self.where, self._what = where, what
        with damage(where, what):
            self.kind = kind or kind_of(source)
            if self.kind == "PNG" and not isinstance(source, Remote):
                check_png(source)
            if isinstance(source, bytes):
                self._memory = MemoryFile(io.BytesIO(source))
                self.data: Any = self._memory.open(driver=self.kind)
            elif isinstance(source, Remote):
                filesystem, path = source.place()
                self.data = rasterio.open(path, driver=self.kind, opener=ByParts(filesystem))
            else:
                self.data = rasterio.open(source, driver=self.kind)
        self.height, self.width = int(self.data.height), int(self.data.width)
        self.bands = int(self.data.count)
        self.dtype = np.dtype(self.data.dtypes[0])
        size = self.height * self.width * self.bands * self.dtype.itemsize
        self._small = size <= _SMALL and not isinstance(source, Remote)
        self.meaning: tuple[ColorInterp, ...] = tuple(self.data.colorinterp)

    @property
    def nodata(self) -> float | None:
        """The declared value of what is no data, if it is a number; a PNG's transparent colour is none."""
        value = self.data.nodata if self.kind in ("GTiff", "JP2OpenJPEG") else None
        if value is None or np.isnan(value):
            return None
        # As the values hold it: -3.4e38 of a header and of float32 pixels differ in their last digits.
        return float(np.float32(value)) if self.dtype == np.float32 else float(value)

    @property
    def alpha(self) -> int | None:
        """Number of the alpha band, if there is one."""
        return self.meaning.index(ColorInterp.alpha) + 1 if ColorInterp.alpha in self.meaning else None

    @property
    def masked(self) -> bool:
        """Whether the file has a mask of valid pixels of its own, inside or beside it."""
        flags = self.data.mask_flag_enums[0]
        return MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags

    @property
    def bits(self) -> int:
        """Bits of a value, as the file declares them."""
        declared = self.data.tags(1, ns="IMAGE_STRUCTURE").get("NBITS")
        return int(declared) if declared else 8 * self.dtype.itemsize

    @property
    def inverted(self) -> bool:
        """Whether a grey TIFF counts from white to black."""
        return self.data.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") == "YES"

    @property
    def in_blocks(self) -> bool:
        """Whether a part of its columns can be read without the others."""
        return self._small or bool(self.data.block_shapes[0][1] < self.width)

    def _window(self, start: int, stop: int, columns: slice) -> FileWindow:
        left, right, _ = columns.indices(self.width)
        return FileWindow(left, start, right - left, stop - start)

    def read(self, bands: tuple[int, ...], start: int, stop: int, columns: slice = ALL) -> Grid:
        """``[bands, stop - start, W]``."""
        if self._small:
            return self._whole[[n - 1 for n in bands], start:stop, columns]
        window = self._window(start, stop, columns)
        with damage(self.where, self._what), read_settings():
            return np.asarray(self.data.read(list(bands), window=window))

    @cached_property
    def _whole(self) -> Grid:
        """All bands of a small file: much quicker than strip by strip."""
        with damage(self.where, self._what), read_settings():
            return np.asarray(self.data.read())

    def read_mask(self, start: int, stop: int, columns: slice = ALL) -> NDArray[np.bool_]:
        """Valid pixels by the file's own mask, bool ``[stop - start, W]``."""
        window = self._window(start, stop, columns)
        with damage(self.where, self._what), read_settings():
            return np.asarray(self.data.dataset_mask(window=window) != 0)

    def preview(self, bands: tuple[int, ...]) -> Grid:
        """The whole image at no more than 1024 pixels a side, ``[bands, h, w]``, nearest pixels."""
        shape = (len(bands), min(self.height, _PREVIEW), min(self.width, _PREVIEW))
        with damage(self.where, self._what), read_settings():
            return np.asarray(self.data.read(list(bands), out_shape=shape))

    def sample(self, band: int) -> Grid:
        """Values of some rows, evenly spaced: all of a small image, and little of a large one."""
        step = max(self.height // _ROWS, 1)
        rows = range(0, self.height, 1 if self._small else step)
        return np.concatenate([self.read((band,), n, n + 1)[0] for n in rows])

    def palette(self) -> NDArray[np.uint8] | None:
        """Colours of the first band's values, uint8 ``[256, 4]`` RGBA, if it has any."""
        try:
            table = self.data.colormap(1)
        except ValueError:
            return None
        colours = np.zeros((256, 4), np.uint8)
        for value, colour in table.items():
            if 0 <= value < 256:
                colours[value] = colour
        return colours


def read_settings() -> Any:
    """A file that is cut off is an error, not a grey area."""
    return rasterio.Env(GDAL_CACHEMAX=_CACHE_MB, GDAL_ERROR_ON_LIBJPEG_WARNING=True)
