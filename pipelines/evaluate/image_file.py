"""An image file of any usual kind as RGB pixels, by fixed rules."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.pictures.errors import UnusableImage
from pipelines.pictures.picture import open_picture
from unigeoseg.errors import UserError
from unigeoseg.letterbox import Letterbox


def read_image(path: Path) -> NDArray[np.uint8]:
    """The pixels as uint8 RGB ``[H, W, 3]``, upright, by the same rules as in builds (``docs/files.md``).

    Raises:
        UserError: there is no such file, or it is no readable image or cut off.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise UserError(f"--image {path} {what}; give an image file (PNG, JPEG, TIFF, ...)")
    try:
        return open_picture(path).pixels()
    except UnusableImage as error:
        if "known kind" in error.detail:
            raise UserError(f"{path} is not an image that can be read; convert it to PNG or JPEG") from error
        if error.reason == "huge_image":
            raise UserError(f"{path} is too large ({error.detail}); cut it into tiles first") from error
        if error.reason == "unreadable_image":
            raise UserError(f"{path} is damaged or cut off: {error.detail}") from error
        raise


def check_shape(image: NDArray[np.uint8], size: int, smallest: int, path: Path) -> None:
    """Refuses an image that letterboxing would make thinner than ``smallest`` pixels.

    Raises:
        UserError: with its shape and the remedy.
    """
    height, width = image.shape[:2]
    fit = Letterbox.fit(height, width, size)
    if min(height, width, fit.inner_height, fit.inner_width) < smallest:
        raise UserError(
            f"{path} is {width} x {height} pixels: too thin to segment (its short side must be at least "
            f"{smallest} pixels, also when the long side is {size}); crop it"
        )
