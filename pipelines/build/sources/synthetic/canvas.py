"""A picture with an instance map: shapes are painted antialiased, and claim exactly the pixels they show."""

import cv2
import numpy as np
from numpy.typing import NDArray

from pipelines.build.sources.synthetic.texture import Colour, Float

Polygon = NDArray[np.float32]
_SHIFT = 4


class Canvas:
    """Picture float32 ``[S, S, 3]`` in 0..255 and instance map int32 ``[S, S]``.

    Args:
        background: the ground, float32 ``[S, S, 3]``.
        grain: noise in [-1, 1] that gives painted surfaces their texture.
        sun: (x, y) direction in which shadows fall.
    """

    def __init__(self, background: Float, grain: Float, sun: tuple[float, float]) -> None:
        self.pixels = background
        self.size = int(background.shape[0])
        self.instances = np.zeros((self.size, self.size), np.int32)
        self._grain, self._sun = grain, sun

    def window(self, polygon: Polygon, margin: int = 2) -> tuple[slice, slice]:
        """Rows and columns around a polygon, clipped to the picture."""
        low = np.floor(polygon.min(0)).astype(int) - margin
        high = np.ceil(polygon.max(0)).astype(int) + margin + 1
        x0, y0 = np.clip(low, 0, self.size)
        x1, y1 = np.clip(high, 0, self.size)
        return slice(int(y0), int(y1)), slice(int(x0), int(x1))

    def coverage(self, polygon: Polygon, window: tuple[slice, slice]) -> Float:
        """How much of each pixel in ``window`` the polygon covers, 0..1."""
        rows, columns = window
        alpha = np.zeros((max(rows.stop - rows.start, 0), max(columns.stop - columns.start, 0)), np.uint8)
        if alpha.size:
            origin = np.asarray([columns.start, rows.start], np.float32)
            points = np.round((polygon - origin) * (1 << _SHIFT)).astype(np.int32)
            cv2.fillPoly(alpha, [points], 255, cv2.LINE_AA, _SHIFT)
        return alpha.astype(np.float32) / 255.0

    def fill(
        self, polygon: Polygon, colour: Colour, grain: float = 6.0, instance: int = 0, opacity: float = 1.0
    ) -> None:
        """Paints a polygon; with ``instance`` it also claims the pixels that it mostly covers."""
        window = self.window(polygon)
        alpha = self.coverage(polygon, window)
        if not alpha.size:
            return
        paint = np.asarray(colour, np.float32) + grain * self._grain[window][..., None]
        share = (opacity * alpha)[..., None]
        self.pixels[window] += share * (paint - self.pixels[window])
        if instance:
            self.instances[window][alpha >= 0.5] = instance

    def shadow(self, polygon: Polygon, length: float, strength: float = 0.5) -> None:
        """The shadow of a thing: the polygon swept ``length`` pixels along the sun's direction."""
        offset = np.asarray(self._sun, np.float32) * length
        hull = cv2.convexHull(np.concatenate([polygon, polygon + offset]).astype(np.float32))[:, 0]
        window = self.window(hull)
        alpha = self.coverage(hull, window)
        if alpha.size:
            self.pixels[window] *= (1.0 - strength * alpha)[..., None]

    def blend(self, mask: Float, surface: Float, instance: int = 0) -> None:
        """Lays a whole-picture ``surface`` where ``mask`` (0..1, ``[S, S]``) is set."""
        self.pixels += mask[..., None] * (surface - self.pixels)
        if instance:
            self.instances[mask >= 0.5] = instance

    def finish(self, rng: np.random.Generator) -> NDArray[np.uint8]:
        """The picture as a sensor sees it: slight blur, noise, uint8 RGB."""
        soft = cv2.GaussianBlur(self.pixels, (3, 3), 0.55)
        soft += rng.standard_normal(soft.shape[:2], dtype=np.float32)[..., None] * 2.5
        return np.clip(soft + 0.5, 0, 255).astype(np.uint8)


def place(points: Polygon, centre: tuple[float, float], scale: float, angle: float) -> Polygon:
    """A template polygon (unit length along x) scaled, turned by ``angle`` (radians) and moved."""
    c, s = np.cos(angle), np.sin(angle)
    turn = np.asarray([[c, s], [-s, c]], np.float32)
    return ((points * scale) @ turn + np.asarray(centre, np.float32)).astype(np.float32)


def box(width: float, height: float, x: float = 0.0, y: float = 0.0) -> Polygon:
    """A rectangle around (x, y)."""
    w, h = width / 2, height / 2
    return np.asarray([[x - w, y - h], [x + w, y - h], [x + w, y + h], [x - w, y + h]], np.float32)


def ellipse(width: float, height: float, x: float = 0.0, y: float = 0.0, corners: int = 28) -> Polygon:
    """An ellipse around (x, y) as a polygon."""
    t = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    return np.stack([x + width / 2 * np.cos(t), y + height / 2 * np.sin(t)], 1).astype(np.float32)
