"""A picture file of any usual kind as RGB bytes, by the same rules whoever asks.

What becomes of each form stands in ``docs/files.md``.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pipelines.pictures.colour import Shown, chosen_bands, over_black, preview_values
from pipelines.pictures.errors import UnusableImage, damage
from pipelines.pictures.rasters import (
    BY_PARTS,
    ArrayRaster,
    FileRaster,
    Flipped,
    Raster,
    Source,
    fetched,
    kind_of,
    png_depth,
)
from pipelines.pictures.remote import Remote
from pipelines.pictures.turn import SOUTH_UP, UPRIGHT, turn_pixels

Stretch = Literal["auto", "none", "percentile"] | tuple[float, float]

#: Larger files are read strip by strip, so that memory does not follow the image.
_AT_ONCE = 50_000_000
#: More pixels than any sensor's scene; a few bytes of file can claim them.
_MOST = 4_000_000_000
#: Modes of Pillow with 8 bits a channel.
_PLAIN = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"}
#: Kinds whose bytes a store may keep, and what it calls them.
_KEPT = {"PNG": "png", "JPEG": "jpg"}
_ORIENTATION = 0x0112


@dataclass(frozen=True)
class Rules:
    """How pictures are shown.

    Attributes:
        bands: shown as red, green, blue (or one: grey), counted from 1; ``None``: the first three.
        stretch: to 8 bits: auto (bytes as they are, else percentile), none, percentile (2 to 98), or limits.
        turn: whether an EXIF orientation, or rows from south to north, are turned.
    """

    bands: tuple[int, ...] | None = None
    stretch: Stretch = "auto"
    turn: bool = True


USUAL = Rules()


@dataclass
class Picture:
    """An opened picture.

    Attributes:
        raster: rows, uint8 RGB ``[h, W, 3]``, upright.
        valid: rows, bool ``[h, W]``: where there is data; ``None``: everywhere.
        encoded: the file's own bytes, where they say the same as ``raster`` and a store may keep them.
        extension: of ``encoded``: "png" or "jpg".
        turn: how the stored picture was turned; see :mod:`pipelines.pictures.turn`.
        file: the opened raster file, where it was read as one (for its georeference).
    """

    raster: Raster
    valid: Raster | None = None
    encoded: bytes | None = None
    extension: str = "png"
    turn: int = UPRIGHT
    file: FileRaster | None = None

    @property
    def height(self) -> int:
        """Pixels, upright."""
        return self.raster.height

    @property
    def width(self) -> int:
        """Pixels, upright."""
        return self.raster.width

    @property
    def in_blocks(self) -> bool:
        """Whether some columns can be read without the others."""
        return self.file is None or self.file.in_blocks

    def pixels(self) -> NDArray[np.uint8]:
        """All of it, uint8 RGB ``[H, W, 3]``."""
        return np.ascontiguousarray(self.raster.rows(0, self.height))


def open_picture(source: Source, rules: Rules = USUAL, name: str | None = None) -> Picture:
    """Opens a picture.

    Args:
        source: the file, or its bytes.
        rules: how it is shown.
        name: of the file, for messages.

    Raises:
        UnusableImage: missing, unreadable, or without the bands that are asked for.
    """
    where = name or name_of(source)
    with damage(where, "image"):
        source = fetched(source)
    if rules.bands is None and rules.stretch in ("auto", "none"):
        plain = _plain(source, rules, where)
        if plain is not None:
            return plain
    file = FileRaster(source, "image", where)
    if file.height * file.width > _MOST:
        raise UnusableImage("huge_image", where, f"claims {file.width}x{file.height} pixels")
    bands = chosen_bands(file, rules.bands)
    limits = limits_of(file, bands, rules.stretch)
    shown = Shown(file, bands, limits)
    picture = Picture(shown, shown.validity(), file=file)
    if not rules.turn:
        return picture
    with damage(where, "image"):
        turn = picture.turn = SOUTH_UP if _south_up(file) else _orientation(source, file)
    if turn != UPRIGHT:
        picture.raster = turn_rows(picture.raster, turn)
        picture.valid = None if picture.valid is None else turn_rows(picture.valid, turn)
    return picture


def name_of(source: Source) -> str:
    """What messages call a file."""
    return "the picture" if isinstance(source, bytes) else str(getattr(source, "url", source))


def turn_rows(raster: Raster, turn: int) -> Raster:
    """A stored raster turned to be seen; all of it is held, unless it only stands upside down."""
    if turn == UPRIGHT:
        return raster
    if turn == SOUTH_UP:
        return Flipped(raster)
    return ArrayRaster(turn_pixels(raster.rows(0, raster.height), turn))


def _orientation(source: Source, file: FileRaster) -> int:
    """EXIF's, also of a TIFF without georeference."""
    if file.kind == "JP2OpenJPEG" or file.data.crs is not None:
        return UPRIGHT
    try:
        opened = io.BytesIO(source) if isinstance(source, bytes) else source
        with Image.open(opened.open() if isinstance(opened, Remote) else opened) as image:
            return exif_turn(image)
    except (UnidentifiedImageError, Image.DecompressionBombError):  # a TIFF that Pillow does not take, say
        turn = str(file.data.tags().get("EXIF_Orientation", ""))
        return int(turn) if turn in "12345678" and turn else UPRIGHT


def exif_turn(image: Image.Image) -> int:
    """The orientation that an image says it has, 1 to 8."""
    turn = image.getexif().get(_ORIENTATION, UPRIGHT)
    return int(turn) if turn in range(1, 9) else UPRIGHT


def _south_up(file: FileRaster) -> bool:
    at = file.data.transform
    return file.data.crs is not None and at.e > 0 and at.b == 0 and at.d == 0


def _plain(source: Source, rules: Rules, where: str) -> Picture | None:
    """A small file with 8 bits a channel, decoded at once; ``None`` for all others."""
    with damage(where, "image"):
        kind = kind_of(source)
        if kind in BY_PARTS or (kind == "PNG" and png_depth(source) > 8) or isinstance(source, Remote):
            return None
        data = source if isinstance(source, bytes) else _small(source)
        try:
            opened = Image.open(io.BytesIO(data) if data else source)
        except Image.DecompressionBombError:  # read strip by strip
            return None
        with opened as image:
            if image.width * image.height > _MOST:
                raise UnusableImage("huge_image", where, f"claims {image.width}x{image.height} pixels")
            if image.width * image.height > _AT_ONCE or not data or image.mode not in _PLAIN:
                return None
            turn = exif_turn(image) if rules.turn else UPRIGHT
            if not image.has_transparency_data:
                pixels = np.asarray(image.convert("RGB"))
                keep = kind in _KEPT and image.mode in ("RGB", "L", "P") and turn == UPRIGHT
                picture = Picture(ArrayRaster(turn_pixels(pixels, turn)), turn=turn)
                picture.encoded, picture.extension = data if keep else None, _KEPT.get(kind, "png")
                return picture
            rgba = turn_pixels(np.asarray(image.convert("RGBA")), turn)
    alpha = rgba[..., 3]
    valid = None if alpha.all() else ArrayRaster(alpha > 0)
    return Picture(ArrayRaster(over_black(rgba[..., :3], alpha)), valid, turn=turn)


def _small(file: Path) -> bytes:
    return file.read_bytes() if file.stat().st_size < 4 * _AT_ONCE else b""


def limits_of(
    file: FileRaster, bands: tuple[int, ...], stretch: Stretch, others: Sequence[FileRaster] = ()
) -> NDArray[np.float64] | None:
    """Low and high value of each band, ``[bands, 2]``; ``None`` for bytes that stay as they are.

    Args:
        file: opened.
        bands: that are shown.
        stretch: see :class:`Rules`.
        others: files with the same bands whose percentiles are taken together with this one's.

    Raises:
        UnusableImage: ``stretch`` is none, and the values are no bytes.
    """
    if file.dtype == np.uint8 and stretch in ("auto", "none"):
        if file.bits == 8 or file.palette() is not None:
            return None
        return np.repeat([[0.0, float(2**file.bits - 1)]], len(bands), axis=0)
    if stretch == "none":
        raise UnusableImage(
            "not_bytes", file.where, f"values are {file.dtype}: set stretch to percentile or [low, high]"
        )
    if isinstance(stretch, tuple):
        low, high = stretch
        return np.repeat(np.asarray([[low, max(high, low + 1e-9)]], np.float64), len(bands), axis=0)
    found = []
    for parts in zip(*(preview_values(one, bands) for one in (file, *others)), strict=True):
        values = np.concatenate(parts)
        low, high = np.percentile(values, [2, 98]) if len(values) else (0.0, 1.0)
        found.append((low, high if high > low else low + 1.0))
    return np.asarray(found)
