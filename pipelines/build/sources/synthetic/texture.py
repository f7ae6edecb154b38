"""Surfaces seen from above: fractal noise, and colours mixed by it."""

import cv2
import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]
Colour = tuple[float, float, float]


def fractal_noise(rng: np.random.Generator, size: int, coarsest: int = 4, octaves: int = 5) -> Float:
    """Smooth noise in about [-1, 1], float32 ``[size, size]``: octaves of upsampled white noise."""
    total = np.zeros((size, size), np.float32)
    weight, cells = 1.0, coarsest
    for _ in range(octaves):
        grid = rng.standard_normal((cells + 1, cells + 1), dtype=np.float32)
        total += weight * cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC)
        weight, cells = weight * 0.55, cells * 2
        if cells >= size:
            break
    return np.clip(total / (np.abs(total).max() + 1e-6), -1.0, 1.0)


def mix(first: Colour, second: Colour, share: Float) -> Float:
    """Per-pixel mixture of two colours, ``share`` in [0, 1]; float32 ``[H, W, 3]``."""
    a, b = np.asarray(first, np.float32), np.asarray(second, np.float32)
    return a + share[..., None] * (b - a)


def vary(rng: np.random.Generator, colour: Colour, amount: float = 10.0) -> Colour:
    """The same colour, a little brighter or darker and shifted in hue."""
    shift = rng.normal(0.0, amount) + rng.normal(0.0, amount / 3, 3)
    r, g, b = np.clip(np.asarray(colour) + shift, 8, 247)
    return float(r), float(g), float(b)
