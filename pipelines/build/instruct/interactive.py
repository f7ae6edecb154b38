"""Boxes and points by exact rules (paper, section 8)."""

from typing import Any

import numpy as np

from pipelines.config.building import InstructConfig
from pipelines.labels.regions import Region
from unigeoseg.samples.prompts import interactive_sentence

#: Digits that a stored coordinate keeps; the sentence prints three.
_DIGITS = 6


def tight_box(region: Region, height: int, width: int) -> tuple[float, float, float, float]:
    """x0, y0, x1, y1 of the tight rectangle, half open, in [0, 1]."""
    return (
        round(region.x0 / width, _DIGITS),
        round(region.y0 / height, _DIGITS),
        round(region.x1 / width, _DIGITS),
        round(region.y1 / height, _DIGITS),
    )


def draw_points(
    region: Region, height: int, width: int, config: InstructConfig, rng: np.random.Generator
) -> list[tuple[float, float]]:
    """Centres of one to three distinct pixels of the region; one when it is small."""
    pixels = np.flatnonzero(region.crop)
    count = 1
    if len(pixels) >= config.small_region_px:
        shares = np.asarray(config.point_counts, dtype=np.float64)
        count = 1 + int(rng.choice(3, p=shares / shares.sum()))
    chosen = pixels[rng.choice(len(pixels), count, replace=False)]
    return [
        (
            round((region.x0 + column + 0.5) / width, _DIGITS),
            round((region.y0 + row + 0.5) / height, _DIGITS),
        )
        for row, column in (divmod(int(pixel), region.crop.shape[1]) for pixel in chosen)
    ]


def interactive_fields(
    region: Region, height: int, width: int, use_box: bool, config: InstructConfig, rng: np.random.Generator
) -> dict[str, Any]:
    """Subtask, instruction, box and points of an interactive sample."""
    if use_box:
        corners = tight_box(region, height, width)
        return {
            "subtask": "box",
            "instruction": interactive_sentence(box=corners),
            "box": list(corners),
            "points": None,
        }
    points = draw_points(region, height, width, config, rng)
    return {
        "subtask": "point",
        "instruction": interactive_sentence(points=points),
        "box": None,
        "points": [list(p) for p in points],
    }
