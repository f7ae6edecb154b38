"""Image files of any size, read as strips of rows: small ones by Pillow, large and TIFF by rasterio."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import rasterio
import rasterio.errors
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from rasterio.windows import Window as FileWindow

from pipelines.build.sources.base import UnusableImage
from pipelines.build.sources.table import Stretch

#: Larger files are read strip by strip, so that memory does not follow the image.
_AT_ONCE = 50_000_000
#: More pixels than any sensor's scene; a few bytes of file can claim them.
_MOST = 4_000_000_000
_PLAIN = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"}
#: Formats whose files hold pixels themselves; others of GDAL's may name further files or servers.
_DRIVERS = {
    b"II*\0": "GTiff",
    b"MM\0*": "GTiff",
    b"II+\0": "GTiff",
    b"MM\0+": "GTiff",
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"\0\0\0\x0cjP": "JP2OpenJPEG",
    b"BM": "BMP",
}
_CACHE_MB = 96
_PREVIEW = 1024

Grid = NDArray[Any]


class Raster(Protocol):
    """Rows of an image file."""

    height: int
    width: int

    def rows(self, start: int, stop: int) -> Grid:
        """``[stop - start, W]`` or ``[stop - start, W, C]``.

        Raises:
            UnusableImage: the file is damaged there.
        """
        ...


class ArrayRaster:
    """An image that is in memory."""

    def __init__(self, pixels: Grid) -> None:
        self._pixels = pixels
        self.height, self.width = int(pixels.shape[0]), int(pixels.shape[1])

    def rows(self, start: int, stop: int) -> Grid:
        """A view."""
        return self._pixels[start:stop]


class FileRaster:
    """A file that rasterio reads; it is opened once and closed with the object."""

    def __init__(self, file: Path, what: str) -> None:
        self._file, self._what = file, what
        with _damage(file, what), warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            self._data = rasterio.open(file, driver=_driver(file))
        self.height, self.width = int(self._data.height), int(self._data.width)
        self.bands = int(self._data.count)
        self.dtype = np.dtype(self._data.dtypes[0])
        self.nodata = self._data.nodata

    def read(self, bands: tuple[int, ...], start: int, stop: int) -> Grid:
        """``[bands, stop - start, W]``."""
        window = FileWindow(0, start, self.width, stop - start)
        with _damage(self._file, self._what), rasterio.Env(GDAL_CACHEMAX=_CACHE_MB):
            return np.asarray(self._data.read(list(bands), window=window))

    def preview(self, bands: tuple[int, ...]) -> Grid:
        """The whole image at no more than 1024 pixels a side, ``[bands, h, w]``, nearest pixels."""
        shape = (len(bands), min(self.height, _PREVIEW), min(self.width, _PREVIEW))
        with _damage(self._file, self._what), rasterio.Env(GDAL_CACHEMAX=_CACHE_MB):
            return np.asarray(self._data.read(list(bands), out_shape=shape))

    def palette(self) -> NDArray[np.uint8] | None:
        """Colours of the first band's values, uint8 ``[256, 3]``, if it has any."""
        try:
            table = self._data.colormap(1)
        except ValueError:
            return None
        colours = np.zeros((256, 3), np.uint8)
        for value, colour in table.items():
            if 0 <= value < 256:
                colours[value] = colour[:3]
        return colours


def _driver(file: Path) -> str:
    """The reader for a file, by its first bytes."""
    with file.open("rb") as handle:
        head = handle.read(8)
    for start, driver in _DRIVERS.items():
        if head.startswith(start):
            return driver
    raise ValueError("not an image of a known kind")


class _Colour:
    """Rows of a file as RGB bytes, stretched by fixed limits per band."""

    def __init__(self, data: FileRaster, bands: tuple[int, ...], limits: NDArray[np.float64] | None) -> None:
        self._data, self._bands, self._limits = data, bands, limits
        self.height, self.width = data.height, data.width

    def rows(self, start: int, stop: int) -> NDArray[np.uint8]:
        """uint8 ``[h, W, 3]``."""
        values = self._data.read(self._bands, start, stop)
        if self._limits is not None:
            low, high = self._limits[:, 0, None, None], self._limits[:, 1, None, None]
            scaled = (values.astype(np.float32) - low.astype(np.float32)) * (255.0 / (high - low)).astype(
                np.float32
            )
            values = np.nan_to_num(np.clip(np.rint(scaled), 0, 255), nan=0.0).astype(np.uint8)
        pixels = np.moveaxis(values, 0, -1)
        return np.ascontiguousarray(np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels)


class _Values:
    """Rows of a file's first band, whole numbers as int32."""

    def __init__(self, data: FileRaster) -> None:
        self._data = data
        self._type = np.dtype(np.int32) if data.dtype.kind in "ui" else data.dtype
        self.height, self.width = data.height, data.width

    def rows(self, start: int, stop: int) -> Grid:
        """``[h, W]``."""
        return np.asarray(self._data.read((1,), start, stop)[0].astype(self._type))


class _Palette:
    """Rows of a one-band file through its colour table."""

    def __init__(self, data: FileRaster, colours: NDArray[np.uint8]) -> None:
        self._data, self._colours = data, colours
        self.height, self.width = data.height, data.width

    def rows(self, start: int, stop: int) -> NDArray[np.uint8]:
        """uint8 ``[h, W, 3]``."""
        return self._colours[np.clip(self._data.read((1,), start, stop)[0], 0, 255)]


def open_image(
    file: Path, bands: tuple[int, ...] | None, stretch: Stretch
) -> tuple[Raster, bytes | None, str]:
    """An image as RGB bytes: its rows, and the file's own content and kind where that may be kept.

    Raises:
        UnusableImage: missing, unreadable, or without the bands that are asked for.
    """
    if bands is None and stretch in ("auto", "none"):
        plain = _pillow(file, "image", "RGB")
        if plain is not None:
            pixels, data, mode = plain
            keep = data if mode in ("RGB", "L", "P") else None
            return ArrayRaster(pixels), keep, "png" if file.suffix.lower() == ".png" else "jpg"
    raster = FileRaster(file, "image")
    chosen = bands or ((1, 2, 3) if raster.bands >= 3 else (1,))
    if max(chosen) > raster.bands:
        raise UnusableImage(
            "missing_band", str(file), f"the image has {raster.bands} bands, band {max(chosen)} is asked for"
        )
    return _Colour(raster, chosen, _limits(raster, chosen, stretch, file)), None, "png"


def _limits(
    raster: FileRaster, bands: tuple[int, ...], stretch: Stretch, file: Path
) -> NDArray[np.float64] | None:
    """Low and high value of each band, ``[bands, 2]``; ``None`` for bytes that stay as they are."""
    if raster.dtype == np.uint8 and stretch in ("auto", "none"):
        return None
    if stretch == "none":
        raise UnusableImage(
            "not_bytes", str(file), f"values are {raster.dtype}: set stretch to percentile or [low, high]"
        )
    if isinstance(stretch, tuple):
        low, high = stretch
        return np.repeat(np.asarray([[low, max(high, low + 1e-9)]], np.float64), len(bands), axis=0)
    found = []
    for values in raster.preview(bands).astype(np.float64):
        good = values[np.isfinite(values) & (values != raster.nodata if raster.nodata is not None else True)]
        low, high = np.percentile(good, [2, 98]) if len(good) else (0.0, 1.0)
        found.append((low, high if high > low else low + 1.0))
    return np.asarray(found)


def open_index(file: Path, soft: bool = False) -> Raster:
    """A mask of class numbers, int32 rows; palette files give their indices, not their colours.

    Args:
        file: the mask.
        soft: values with a fraction are taken, too (as they are, for a threshold).

    Raises:
        UnusableImage: missing, unreadable, or a colour image.
    """
    plain = _pillow(file, "mask", None)
    if plain is None:
        raster = FileRaster(file, "mask")
        if raster.bands != 1 or raster.dtype.kind not in ("uif" if soft else "ui"):
            raise _coloured(file, f"{raster.bands} bands of {raster.dtype}")
        return _Values(raster)
    values, _, mode = plain
    if values.ndim == 3:  # grey saved as RGB is still an index mask
        if mode not in ("RGB", "RGBA") or (values[..., :3] != values[..., :1]).any():
            raise _coloured(file, f"mode {mode}")
        values = values[..., 0]
    return ArrayRaster(values.astype(np.int32))


def _coloured(file: Path, what: str) -> UnusableImage:
    return UnusableImage(
        "mask_kind", str(file), f"the mask should hold one class number a pixel, but has {what}"
    )


def open_colours(file: Path) -> Raster:
    """A colour mask, uint8 RGB rows; palettes are resolved.

    Raises:
        UnusableImage: missing, unreadable, or without colours.
    """
    plain = _pillow(file, "mask", "RGB")
    if plain is not None:
        return ArrayRaster(plain[0])
    raster = FileRaster(file, "mask")
    if raster.bands >= 3 and raster.dtype == np.uint8:
        return _Colour(raster, (1, 2, 3), None)
    colours = raster.palette()
    if raster.bands == 1 and colours is not None:
        return _Palette(raster, colours)
    raise UnusableImage(
        "mask_kind",
        str(file),
        f"the mask should have colours, not {raster.bands} bands of {raster.dtype}",
    )


def _pillow(file: Path, what: str, mode: str | None) -> tuple[Grid, bytes, str] | None:
    """A small 8-bit PNG, JPEG or BMP decoded at once, its bytes and its mode; ``None`` for all others."""
    with _damage(file, what):
        if _driver(file) in ("GTiff", "JP2OpenJPEG"):
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            data = file.read_bytes() if file.stat().st_size < 4 * _AT_ONCE else b""
            with Image.open(io.BytesIO(data) if data else file) as image:
                if image.width * image.height > _MOST:
                    raise UnusableImage(
                        f"huge_{what}", str(file), f"claims {image.width}x{image.height} pixels"
                    )
                if image.width * image.height > _AT_ONCE or not data or image.mode not in _PLAIN:
                    return None
                return np.asarray(image if mode is None else image.convert(mode)), data, image.mode


@contextmanager
def _damage(file: Path, what: str) -> Iterator[None]:
    """Turns what the readers raise into one kind of error that names the file."""
    try:
        yield
    except UnusableImage:
        raise
    except FileNotFoundError as error:
        raise UnusableImage(f"missing_{what}", str(file), f"there is no such {what}") from error
    except Image.DecompressionBombError as error:
        raise UnusableImage(f"huge_{what}", str(file), str(error)) from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, rasterio.errors.RasterioError) as error:
        detail = str(error).replace(str(file), "it").strip() or type(error).__name__
        raise UnusableImage(
            f"unreadable_{what}", str(file), f"the {what} cannot be read ({detail}): replace or remove it"
        ) from error
