"""Reading image files strictly, and turning colour masks into labels."""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pipelines.build.sources.base import UnusableImage

RGB = tuple[int, int, int]


def read_rgb(file: Path, what: str) -> tuple[NDArray[np.uint8], bytes]:
    """Pixels as uint8 RGB (palettes resolved) and the file's bytes.

    Raises:
        UnusableImage: the file is missing, unreadable or truncated.
    """
    try:
        data = file.read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            pixels = np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        detail = str(error).replace(f"{error.__class__.__name__}: ", "") or error.__class__.__name__
        if "BytesIO" in detail:
            detail = "not a PNG or JPEG file"
        raise UnusableImage(
            f"unreadable_{what}", str(file), f"the {what} cannot be read ({detail}): replace or remove it"
        ) from error
    return pixels, data


def decode_colours(
    pixels: NDArray[np.uint8], table: Mapping[RGB, int]
) -> tuple[NDArray[np.int32], dict[RGB, int]]:
    """Labels of a colour mask; pixels of a colour outside the table become 0 and are counted.

    Args:
        pixels: uint8 RGB ``[H, W, 3]``.
        table: label of each colour.

    Returns:
        int32 ``[H, W]``, and pixel counts of unknown colours.
    """
    packed = pixels.astype(np.int32) @ np.asarray([1 << 16, 1 << 8, 1], np.int32)
    found, inverse, counts = np.unique(packed, return_inverse=True, return_counts=True)
    labels, unknown = np.zeros(len(found), np.int32), {}
    for i, value in enumerate(int(v) for v in found):
        colour = (value >> 16, value >> 8 & 255, value & 255)
        if colour in table:
            labels[i] = table[colour]
        else:
            unknown[colour] = int(counts[i])
    return labels[inverse].reshape(packed.shape), unknown
