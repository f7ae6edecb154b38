"""Pictures for the endpoint: the tile untouched but for thin outlines just outside the regions."""

import base64

import cv2
import numpy as np
from numpy.typing import NDArray

from pipelines.labels.regions import Region

#: Name that the prompt uses, and RGB: the target first, then those that it must be told from.
COLOURS: tuple[tuple[str, tuple[int, int, int]], ...] = (
    ("red", (255, 0, 0)),
    ("blue", (0, 90, 255)),
    ("yellow", (255, 230, 0)),
)
_WIDTH_PX = 2


def outlined(pixels: NDArray[np.uint8], regions: list[Region]) -> NDArray[np.uint8]:
    """Outlines in the colours of :data:`COLOURS`, in order; no pixel of any of the regions is changed.

    Args:
        pixels: uint8 RGB ``[H, W, 3]``.
        regions: at most as many as there are colours.
    """
    height, width = pixels.shape[:2]
    masks = [region.full(height, width) for region in regions]
    free = ~np.any(masks, axis=0)
    picture = pixels.copy()
    kernel = np.ones((2 * _WIDTH_PX + 1,) * 2, np.uint8)
    for mask, (_, colour) in reversed(list(zip(masks, COLOURS, strict=False))):
        picture[(cv2.dilate(mask, kernel) > 0) & free] = colour
    return picture


def data_url(pixels: NDArray[np.uint8]) -> str:
    """RGB pixels as a PNG in a data URL."""
    ok, encoded = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    if not ok:
        raise RuntimeError("the PNG encoder failed")
    return "data:image/png;base64," + base64.b64encode(encoded.tobytes()).decode("ascii")


def image_tokens(height: int, width: int, detail: str) -> int:
    """Tokens of an image by OpenAI's rule for GPT-4o (platform.openai.com, images and vision).

    85, and in high detail 170 for each 512-pixel square after fitting into 2048 pixels and scaling the
    shorter side down to 768.
    """
    if detail == "low":
        return 85
    scale = min(1.0, 2048 / max(height, width))
    scale = min(scale, 768 / min(height, width) if min(height, width) * scale > 768 else scale)
    return 85 + 170 * int(np.ceil(height * scale / 512)) * int(np.ceil(width * scale / 512))
