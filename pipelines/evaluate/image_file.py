"""An image file of any usual kind as RGB pixels, by fixed rules."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from unigeoseg.errors import UserError
from unigeoseg.letterbox import Letterbox


def read_image(path: Path) -> NDArray[np.uint8]:
    """The pixels as uint8 RGB ``[H, W, 3]``, in the file's own orientation.

    Grey becomes three equal channels; palettes are resolved; transparent pixels are laid over black; 16-bit
    colour keeps its high byte; single-channel 16- or 32-bit integers are stretched linearly from their
    minimum and maximum to 0-255.

    Raises:
        UserError: there is no such file, it is no readable image or cut off, or its pixels are floats.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise UserError(f"--image {path} {what}; give an image file (PNG, JPEG, TIFF, ...)")
    try:
        with Image.open(path) as image:
            image.load()
            return _to_rgb(image, path)
    except UnidentifiedImageError as error:
        raise UserError(f"{path} is not an image that can be read; convert it to PNG or JPEG") from error
    except Image.DecompressionBombError as error:
        raise UserError(f"{path} is too large ({error}); cut it into tiles first") from error
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's words for damaged files
        raise UserError(f"{path} is damaged or cut off ({error}); copy or download it again") from error


def _to_rgb(image: Image.Image, path: Path) -> NDArray[np.uint8]:
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.float64)
        low, high = float(values.min()), float(values.max())
        grey = np.round((values - low) * (255 / (high - low or 1))).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode == "F":
        raise UserError(f"{path} holds floating-point values; scale it to 8 or 16 bits per channel first")
    if image.has_transparency_data:
        over = Image.new("RGBA", image.size, (0, 0, 0, 255))
        return np.array(Image.alpha_composite(over, image.convert("RGBA")).convert("RGB"))
    return np.array(image.convert("RGB"))


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
