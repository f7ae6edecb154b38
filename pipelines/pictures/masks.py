"""Mask files by stated rules, whatever their size and kind.

Class masks hold a number a pixel (:func:`open_index`) or a colour (:func:`open_colours`), truth masks say
what is meant (:func:`read_truth`). Alpha is no class: it is left out. Palette files give their indices where
numbers are meant, and their colours where colours are. Grey of 1, 2, 4, 8 or 16 bits gives its stored values.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.pictures.errors import UnusableImage, damage
from pipelines.pictures.rasters import ALL, FileRaster, Grid, Source, fetched

_STRIP = 512


@dataclass(frozen=True)
class Channels:
    """Bands of a mask file: those that count, and alpha."""

    file: FileRaster
    counting: tuple[int, ...]
    alpha: int | None


def _open(source: Source, name: str | None) -> Channels:
    where = name or ("the mask" if isinstance(source, bytes) else str(source))
    with damage(where, "mask"):
        source = fetched(source)
    file = FileRaster(source, "mask", where)
    alpha = file.alpha if file.bands in (2, 4) else None
    return Channels(file, tuple(n for n in range(1, file.bands + 1) if n != alpha), alpha)


class Numbers:
    """Rows of class numbers; bands that should be equal are compared as they are read."""

    def __init__(self, channels: Channels, soft: bool) -> None:
        self._channels, self._soft, self.file = channels, soft, channels.file
        self.height, self.width = channels.file.height, channels.file.width
        self._what = f"{channels.file.bands} bands of {channels.file.dtype}"

    def rows(self, start: int, stop: int, columns: slice = ALL) -> Grid:
        """Whole numbers int32 or int64 ``[h, W]``; floats where soft, no number where there is no data."""
        file = self._channels.file
        bands = file.read(self._channels.counting, start, stop, columns)
        if len(bands) > 1 and (bands[1:] != bands[:1]).any():
            raise not_numbers(file.where, self._what)
        values = bands[0]
        if self._soft:
            return _without(values.astype(np.float64), values, file.nodata, np.nan)
        if values.dtype.kind == "f":
            values = self._whole(values)
        wide = np.int32 if values.dtype.itemsize < 4 or values.dtype == np.int32 else np.int64
        return _without(values.astype(wide), bands[0], file.nodata, NO_DATA)

    def _whole(self, values: Grid) -> Grid:
        known = np.isfinite(values)
        if (values[known] % 1 != 0).any():
            raise not_numbers(self._channels.file.where, f"values with a fraction ({self._what})")
        return np.where(known & (np.abs(values) < 2**62), values, NO_DATA).astype(np.int64)


#: What stands for a pixel without data in rows of class numbers.
NO_DATA = int(np.iinfo(np.int32).min)


def _without(out: Grid, values: Grid, nodata: float | None, mark: float) -> Grid:
    if nodata is not None:
        out[values == nodata] = mark
    return out


def open_index(source: Source, soft: bool = False, name: str | None = None) -> Numbers:
    """A mask of class numbers: :data:`NO_DATA` stands where the file declares that there is no data.

    Args:
        source: the mask, or its bytes.
        soft: values with a fraction are taken, too (as floats, for a threshold).
        name: of the file, for messages.

    Raises:
        UnusableImage: missing, unreadable, or a colour image (also while rows are read).
    """
    channels = _open(source, name)
    file = channels.file
    if len(channels.counting) not in (1, 3) or file.dtype.kind not in "uif":
        raise not_numbers(file.where, f"{file.bands} bands of {file.dtype}")
    if channels.alpha and _alpha_alone(channels):
        raise not_numbers(file.where, "one colour, only its alpha varies")
    numbers = Numbers(channels, soft)
    numbers.rows(0, 1)  # colours mostly show in the first row
    return numbers


def not_numbers(where: str, what: str) -> UnusableImage:
    """A mask that has something else than class numbers."""
    detail = f"the mask should hold one class number a pixel, but has {what}"
    return UnusableImage(
        "mask_kind", where, f"{detail}: set encoding: palette for colours, threshold for soft"
    )


class Colours:
    """Rows of a file's first three bands, or of one through its palette."""

    def __init__(self, file: FileRaster, bands: tuple[int, ...], palette: NDArray[np.uint8] | None) -> None:
        self.file, self._bands, self._palette = file, bands, palette
        self.height, self.width = file.height, file.width

    def rows(self, start: int, stop: int, columns: slice = ALL) -> NDArray[np.uint8]:
        """uint8 RGB ``[h, W, 3]``."""
        values = self.file.read(self._bands, start, stop, columns)
        if self._palette is not None:
            return np.asarray(self._palette[np.clip(values[0], 0, 255), :3])
        pixels = np.moveaxis(values, 0, -1)
        return np.ascontiguousarray(np.repeat(pixels, 3, axis=2) if len(values) == 1 else pixels)


def open_colours(source: Source, name: str | None = None) -> Colours:
    """A colour mask, uint8 RGB rows; palettes are resolved, grey PNGs have three equal channels.

    Raises:
        UnusableImage: missing, unreadable, or without colours.
    """
    channels = _open(source, name)
    file, palette = channels.file, channels.file.palette()
    if file.bands == 1 and palette is not None:
        return Colours(file, (1,), palette)
    if len(channels.counting) >= 3 and file.dtype == np.uint8:
        return Colours(file, (1, 2, 3), None)
    # A grey TIFF holds class numbers; a black-and-white colour mask is often saved as a grey PNG.
    if (
        len(channels.counting) == 1
        and file.dtype == np.uint8
        and file.kind != "GTiff"
        and file.bits in (1, 8)
    ):
        grey = np.arange(256, dtype=np.uint8) * (255 if file.bits == 1 else 1)
        return Colours(file, (1,), np.repeat(grey[:, None], 4, axis=1))
    raise UnusableImage(
        "mask_kind", file.where, f"the mask should have colours, not {file.bands} bands of {file.dtype}"
    )


def read_truth(source: Source, name: str | None = None) -> NDArray[np.uint8]:
    """What a truth mask means, uint8 0/1 ``[H, W]``: whatever is not 0 in any channel but alpha.

    Where the colours are all one and alpha varies, alpha is the mask. Palette files count by index, as class
    masks do. What the file declares as no data is not meant.

    Raises:
        UnusableImage: missing or unreadable.
    """
    channels = _open(source, name)
    file = channels.file
    alone = channels.alpha is not None and _alpha_alone(channels)
    bands = (channels.alpha,) if alone and channels.alpha else channels.counting
    values = file.read(bands, 0, file.height)
    meant = np.asarray(values != 0)
    if values.dtype.kind == "f":
        meant &= np.isfinite(values)
    if file.nodata:
        meant &= values != file.nodata
    return np.ascontiguousarray(meant.any(axis=0), dtype=np.uint8)


def _alpha_alone(channels: Channels) -> bool:
    """Whether the colours are one everywhere, and alpha is not."""
    file = channels.file
    assert channels.alpha is not None
    first = file.read((*channels.counting, channels.alpha), 0, 1)[:, 0, 0]
    varies = False
    for start in range(0, file.height, _STRIP):
        stop = min(start + _STRIP, file.height)
        bands = file.read((*channels.counting, channels.alpha), start, stop)
        if (bands[:-1] != first[:-1, None, None]).any():
            return False
        varies = varies or bool((bands[-1] != first[-1]).any())
    return varies
