"""From the bands of a raster file to RGB bytes, and which pixels hold data."""

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp

from pipelines.pictures.errors import UnusableImage
from pipelines.pictures.rasters import ALL, FileRaster, Grid, Raster

#: A fourth band of which more is neither 0 nor full is no alpha, whatever its tag says (near infrared, say).
_MOST_HALF_CLEAR = 0.5


def chosen_bands(file: FileRaster, wanted: tuple[int, ...] | None) -> tuple[int, ...]:
    """The bands to show: those wanted, else the first three, else the first.

    Raises:
        UnusableImage: the file has not so many.
    """
    chosen = wanted or ((1, 2, 3) if file.bands >= 3 else (1,))
    if max(chosen) > file.bands:
        raise UnusableImage(
            "missing_band", file.where, f"the image has {file.bands} bands, band {max(chosen)} is asked for"
        )
    return chosen


def over_black(colours: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Colours ``[..., 3]`` laid over black by alpha ``[...]``: products over 255, rounded."""
    if alpha.min(initial=255) == 255:
        return np.ascontiguousarray(colours)
    product = colours.astype(np.uint16) * alpha[..., None] + 128
    return ((product + (product >> 8)) >> 8).astype(np.uint8)


class Shown:
    """Rows of a file as RGB bytes.

    Palettes are resolved, CMYK becomes RGB, other values are stretched by fixed limits a band. What is no
    data is black, what is half clear is laid over black.

    Args:
        file: opened.
        bands: shown as red, green, blue, or one.
        limits: float64 ``[bands, 2]``, or ``None`` for bytes as they are.
    """

    def __init__(self, file: FileRaster, bands: tuple[int, ...], limits: NDArray[np.float64] | None) -> None:
        self._file, self._bands, self._limits = file, bands, limits
        self.height, self.width = file.height, file.width
        self._palette = file.palette() if bands == (1,) and limits is None else None
        self._cmyk = file.bands >= 4 and bands == (1, 2, 3) and file.meaning[0] == ColorInterp.cyan
        self._alpha = real_alpha(file, bands)
        self._numbers = file.nodata is not None or file.dtype.kind == "f"
        self._clear = self._palette is not None and bool((self._palette[:, 3] == 0).any())

    def validity(self) -> Raster | None:
        """Which pixels hold data, or ``None`` if all do."""
        return _Valid(self) if self._numbers or self._alpha or self._file.masked or self._clear else None

    def rows(self, start: int, stop: int, columns: slice = ALL) -> NDArray[np.uint8]:
        """uint8 ``[h, W, 3]``."""
        values = self._file.read(self._bands, start, stop, columns)
        pixels = self._colours(values, start, stop, columns)
        if self._alpha:
            pixels = over_black(pixels, self._opacity(start, stop, columns))
        if (valid := self.valid(values, start, stop, columns)) is not None and not valid.all():
            pixels = np.where(valid[..., None], pixels, 0).astype(np.uint8)
        return np.ascontiguousarray(pixels)

    def _colours(self, values: Grid, start: int, stop: int, columns: slice) -> NDArray[np.uint8]:
        if self._palette is not None:
            return np.asarray(self._palette[np.clip(values[0], 0, 255), :3])
        if self._limits is not None:
            values = _stretched(values, self._limits)
        if self._file.inverted and self._limits is None:
            values = 255 - values
        pixels = np.moveaxis(values, 0, -1)
        if self._cmyk:
            black = 255 - self._file.read((4,), start, stop, columns)[0]
            return over_black((255 - pixels).astype(np.uint8), black)
        return np.asarray(np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels)

    def _opacity(self, start: int, stop: int, columns: slice) -> NDArray[np.uint8]:
        assert self._alpha is not None
        return _bytes_of(self._file.read((self._alpha,), start, stop, columns)[0])

    def valid(self, values: Grid, start: int, stop: int, columns: slice = ALL) -> NDArray[np.bool_] | None:
        """Where there is data, bool ``[h, W]``, given the values ``[bands, h, W]`` of these rows."""
        found = []
        if self._numbers:
            found.append(_has_data(values, self._file.nodata))
        if self._alpha:
            found.append(self._opacity(start, stop, columns) > 0)
        if self._file.masked:
            found.append(self._file.read_mask(start, stop, columns))
        if self._clear and self._palette is not None:
            found.append(self._palette[np.clip(values[0], 0, 255), 3] > 0)
        return np.logical_and.reduce(found) if found else None

    def read_valid(self, start: int, stop: int, columns: slice = ALL) -> NDArray[np.bool_]:
        """The same, with the values read here where they say something of it."""
        read = self._numbers or self._clear
        values = self._file.read(self._bands, start, stop, columns) if read else np.zeros((1, 0, 0), np.uint8)
        valid = self.valid(values, start, stop, columns)
        assert valid is not None
        return valid


class _Valid:
    """Rows of the pixels that hold data."""

    def __init__(self, shown: Shown) -> None:
        self._shown, self.height, self.width = shown, shown.height, shown.width

    def rows(self, start: int, stop: int, columns: slice = ALL) -> NDArray[np.bool_]:
        """Bool ``[h, W]``."""
        return self._shown.read_valid(start, stop, columns)


def _has_data(values: Grid, nodata: float | None) -> NDArray[np.bool_]:
    """Where not all bands are without data: the declared value, or no number."""
    empty = np.zeros(values.shape, bool)
    if nodata is not None:
        empty |= values == nodata
    if values.dtype.kind == "f":
        empty |= ~np.isfinite(values)
    return np.asarray(~empty.all(axis=0))


def _stretched(values: Grid, limits: NDArray[np.float64]) -> NDArray[np.uint8]:
    low, high = limits[:, 0, None, None], limits[:, 1, None, None]
    scale = (255.0 / (high - low)).astype(np.float32)
    scaled = (values.astype(np.float32) - low.astype(np.float32)) * scale
    return np.asarray(np.nan_to_num(np.clip(np.rint(scaled), 0, 255), nan=0.0).astype(np.uint8))


def _bytes_of(alpha: Grid) -> NDArray[np.uint8]:
    """Alpha of any depth as bytes."""
    if alpha.dtype == np.uint8:
        return alpha
    full = float(np.iinfo(alpha.dtype).max) if alpha.dtype.kind in "ui" else 1.0
    return np.asarray(np.clip(np.rint(alpha * (255.0 / full)), 0, 255).astype(np.uint8))


def real_alpha(file: FileRaster, bands: tuple[int, ...]) -> int | None:
    """The band that says how opaque pixels are; ``None`` without one.

    rasterio tags the fourth band of 8-bit files as alpha unless it is told otherwise, so a band that mostly
    holds values in between is taken for what it is: a fourth channel.
    """
    if file.alpha is None or file.alpha in bands:
        return None
    if file.kind in ("GTiff", "JP2OpenJPEG"):
        seen = _bytes_of(file.sample(file.alpha))
        if ((seen > 0) & (seen < 255)).mean() > _MOST_HALF_CLEAR:
            return None
    return file.alpha


def preview_values(file: FileRaster, bands: tuple[int, ...]) -> list[NDArray[np.float64]]:
    """Values of each band that hold data, from a small view of the whole."""
    alpha = real_alpha(file, bands)
    opaque = None if alpha is None else file.preview((alpha,))[0] > 0
    found = []
    for values in file.preview(bands):
        good = np.isfinite(values) if values.dtype.kind == "f" else np.ones(values.shape, bool)
        if file.nodata is not None:
            good &= values != file.nodata
        found.append(values[good if opaque is None else good & opaque].astype(np.float64))
    return found
