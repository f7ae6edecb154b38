"""Masks and prompts drawn on pictures."""

import cv2
import numpy as np
from numpy.typing import NDArray

from pipelines.evaluate.yardsticks import Masks
from unigeoseg.samples.letterbox import Letterbox

Picture = NDArray[np.uint8]
Box = tuple[float, float, float, float]
Points = tuple[tuple[float, float], ...]
#: RGB: what should be found, what was found, what was asked.
TRUTH, PREDICTION, PROMPT = (40, 210, 90), (255, 140, 0), (255, 40, 200)


def enlarge(image: Picture, side: int = 256) -> Picture:
    """A square image at ``side`` pixels or its own size, whichever is larger."""
    side = max(side, image.shape[0])
    resized: Picture = cv2.resize(image, (side, side), interpolation=cv2.INTER_LINEAR)
    return resized


def overlay(image: Picture, mask: Masks, colour: tuple[int, int, int], opacity: float = 0.38) -> Picture:
    """``image [H, W, 3]`` with ``mask`` (any size of the same shape) tinted and outlined."""
    height, width = image.shape[:2]
    area = cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    tint = np.asarray(colour, dtype=np.float32)
    mixed = image * (1 - opacity) + tint * opacity
    result: Picture = np.where(area[..., None] > 0, mixed, image).astype(np.uint8)
    outlines, _ = cv2.findContours(area, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(result, outlines, -1, colour, max(1, round(min(height, width) / 128)))
    return result


def mark_prompt(image: Picture, box: Box | None, points: Points | None, shape: tuple[int, int]) -> Picture:
    """Draws a prompt's box or points (in [0, 1] of the original image) on a letterboxed square ``image``.

    ``shape`` is height and width of the original image, which decides where its corners lie in the square.
    """
    marked, side = image.copy(), image.shape[0]
    fit = Letterbox.fit(*shape, side)
    corners = points or ((box[:2], box[2:]) if box else ())
    spots = [tuple(round(v * side) for v in fit.point(x, y)) for x, y in corners]
    thick = max(2, side // 128)
    if box and not points:
        cv2.rectangle(marked, spots[0], spots[1], PROMPT, thick)
        return marked
    for spot in spots:
        cv2.circle(marked, spot, 3 * thick, (255, 255, 255), -1)
        cv2.circle(marked, spot, 2 * thick, PROMPT, -1)
    return marked
