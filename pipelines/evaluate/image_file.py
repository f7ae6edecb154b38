"""An image file of any usual kind as RGB pixels, by fixed rules."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.pictures.errors import UnusableImage
from pipelines.pictures.georeference import Georeference, georeference_of
from pipelines.pictures.picture import Rules, open_picture
from pipelines.pictures.remote import where_is
from unigeoseg.errors import UserError
from unigeoseg.segmenter import check_shape as check_shape

#: More pixels are refused at once: they would take gigabytes.
_MOST = 178_956_970
_TILES = "map it (unigeoseg map), or cut it into tiles"


def read_image(path: str | Path, turn: bool = True) -> NDArray[np.uint8]:
    """The pixels as uint8 RGB ``[H, W, 3]``, by the same rules as in builds (``docs/files.md``).

    Args:
        path: a file, or a URL (``s3://``, ``https://``), of which a TIFF is read by ranges.
        turn: whether it is turned as its EXIF orientation says.

    Raises:
        UserError: there is no such file, or it is no readable image, cut off, or too large.
    """
    return read_placed(path, turn)[0]


def read_placed(path: str | Path, turn: bool = True) -> tuple[NDArray[np.uint8], Georeference | None]:
    """As :func:`read_image`, and where the picture lies; ``None`` where its file does not say.

    Raises:
        UserError: as there.
    """
    source = where_is(str(path))
    if isinstance(source, Path) and not source.is_file():
        what = "is a folder" if source.is_dir() else "does not exist"
        raise UserError(f"--image {path} {what}; give an image file (PNG, JPEG, TIFF, ...)")
    try:
        picture = open_picture(source, Rules(turn=turn))
        if picture.height * picture.width > _MOST:
            size = f"{picture.width}x{picture.height}"
            raise UserError(f"{path} is too large ({size} pixels, {_MOST} are taken); {_TILES}")
        return picture.pixels(), georeference_of(picture)
    except UnusableImage as error:
        if "known kind" in error.detail:
            raise UserError(f"{path} is not an image that can be read; convert it to PNG or JPEG") from error
        if error.reason == "huge_image":
            raise UserError(f"{path} is too large ({error.detail}); {_TILES}") from error
        if error.reason == "missing_image":
            raise UserError(
                f"--image {path} does not exist; give an image file (PNG, JPEG, TIFF, ...)"
            ) from error
        if error.reason == "unreadable_image":
            raise UserError(f"{path} is damaged or cut off: {error.detail}") from error
        raise
