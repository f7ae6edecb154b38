"""Composes a scene: ground, one large feature, then groups of two or three things of a kind, kept apart."""

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from pipelines.build.sources.synthetic.canvas import Canvas, Polygon, box, ellipse, place
from pipelines.build.sources.synthetic.layouts import LAYOUTS, Layout, Thing
from pipelines.build.sources.synthetic.objects import Pose
from pipelines.build.sources.synthetic.texture import Float, fractal_noise, mix, vary
from pipelines.labels.taxonomy import category_id

_ATTEMPTS = 60


@dataclass
class Scene:
    """Pixels (uint8 RGB), instance map (int32), category id and colour word of each instance."""

    pixels: NDArray[np.uint8]
    instances: NDArray[np.int32]
    categories: dict[int, int] = field(default_factory=dict)
    colours: dict[int, str] = field(default_factory=dict)


class SceneComposer:
    """Draws one scene from a random generator.

    Args:
        rng: decides everything.
        size: side in pixels; things scale with it.
        gap: least distance in pixels between two things of one category.
        targets: how many things the scene aims at.
    """

    def __init__(self, rng: np.random.Generator, size: int, gap: int, targets: int) -> None:
        self._rng, self._size, self._gap, self._targets = rng, size, gap, targets
        self._grid = float(rng.uniform(-0.5, 0.5))
        self._taken = np.zeros((size, size), np.uint8)
        self._near: dict[str, NDArray[np.uint8]] = {}
        self._categories: dict[int, int] = {}
        self._colours: dict[int, str] = {}

    def compose(self, layout_name: str) -> Scene:
        """A scene of the named layout."""
        rng, layout = self._rng, LAYOUTS[layout_name]
        low, high = layout.grounds[int(rng.integers(len(layout.grounds)))]
        noise = fractal_noise(rng, self._size)
        ground = mix(vary(rng, low), vary(rng, high), noise * 0.5 + 0.5)
        grain = fractal_noise(rng, self._size, coarsest=32, octaves=2)
        ground += 5.0 * grain[..., None]
        sun = float(rng.uniform(0, 2 * np.pi))
        canvas = Canvas(ground, grain, (float(np.cos(sun)), float(np.sin(sun))))
        self._clutter(canvas)
        feature = self._feature(canvas, layout.feature, noise)
        self._things(canvas, layout, feature)
        return Scene(canvas.finish(rng), canvas.instances, self._categories, self._colours)

    def _claim(self, category: str) -> int:
        number = len(self._categories) + 1
        self._categories[number] = category_id(category)
        return number

    def _feature(self, canvas: Canvas, kind: str, noise: Float) -> NDArray[np.uint8]:
        empty = np.zeros((self._size, self._size), np.uint8)
        if kind == "sea":
            return self._sea(canvas, noise)
        if kind == "apron":
            return self._apron(canvas)
        if kind == "road":
            self._road(canvas)
        return empty

    def _clutter(self, canvas: Canvas) -> None:
        """What every ground has and no category claims: worn patches, a trodden path, single shrubs."""
        rng, size = self._rng, self._size
        patches = np.clip(fractal_noise(rng, size, coarsest=6) * 4.0 - 0.8, 0, 1)
        tint = float(rng.uniform(0.8, 1.22))
        canvas.pixels *= 1.0 + (tint - 1.0) * patches[..., None]
        if rng.random() < 0.5:
            t = np.linspace(-0.1, 1.1, 24)
            start, end, bend = (rng.uniform(0, 1, 2) for _ in range(3))
            line = np.outer(1 - t, start) + np.outer(t, end) + np.outer(np.sin(np.pi * t) * 0.4, bend - 0.5)
            width = size * float(rng.uniform(0.008, 0.014))
            edge = np.gradient(line, axis=0)[:, ::-1] * [1, -1]
            edge *= width / size / np.linalg.norm(edge, axis=1, keepdims=True)
            track = np.concatenate([line + edge, (line - edge)[::-1]]) * size
            canvas.fill(track.astype(np.float32), vary(rng, (178, 160, 130), 8), 6.0, opacity=0.75)
        for _ in range(int(rng.integers(4, 22))):
            radius = size * float(rng.uniform(0.012, 0.024))
            x, y = (float(v) for v in rng.uniform(0, size, 2))
            shrub = ellipse(radius * 2, radius * 2, x, y, 9)
            canvas.shadow(shrub, radius, 0.35)
            canvas.fill(shrub, vary(rng, (74, 96, 56), 10), 6.0)

    def _half_plane(self, share: float, noise: Float, roughness: float) -> Float:
        """A signed field: positive on one side of a line, with ``share`` of the picture there."""
        side = float(self._rng.integers(4)) * np.pi / 2 + self._rng.uniform(-0.35, 0.35)
        axis = (np.arange(self._size, dtype=np.float32) + 0.5) / self._size - 0.5
        level = axis[None, :] * np.float32(np.cos(side)) + axis[:, None] * np.float32(np.sin(side))
        level = level + roughness * noise
        return np.asarray(level - np.quantile(level[::4, ::4], 1.0 - share), np.float32)

    def _sea(self, canvas: Canvas, noise: Float) -> NDArray[np.uint8]:
        rng = self._rng
        level = self._half_plane(rng.uniform(0.45, 0.6), noise, 0.03)
        mask = np.clip(level * self._size + 0.5, 0, 1).astype(np.float32)
        waves = fractal_noise(rng, self._size, coarsest=16, octaves=3)
        depth = np.clip(level * 2.2, 0, 1)
        water = mix(vary(rng, (70, 110, 122), 6), vary(rng, (28, 62, 88), 6), depth) + 4.0 * waves[..., None]
        quay = np.clip(level * self._size + 4.0, 0, 1).astype(np.float32)
        stone = np.asarray([176, 172, 164], np.float32) + 5.0 * waves[..., None]
        canvas.blend(quay, stone)
        canvas.blend(mask, water, self._claim("Water"))
        self._taken[(quay > 0) & (mask < 1)] = 1
        return (mask >= 1).astype(np.uint8)

    def _apron(self, canvas: Canvas) -> NDArray[np.uint8]:
        rng, size = self._rng, self._size
        level = self._half_plane(rng.uniform(0.5, 0.62), np.zeros((size, size), np.float32), 0.0)
        mask = np.clip(level * size + 0.5, 0, 1).astype(np.float32)
        slabs = mix(
            vary(rng, (150, 150, 150), 6), vary(rng, (132, 133, 136), 6), fractal_noise(rng, size) * 0.5 + 0.5
        )
        step = max(size // 12, 6)
        slabs[::step] -= 9.0
        slabs[:, ::step] -= 9.0
        canvas.blend(mask, slabs)
        line = np.clip(1.2 - np.abs(level * size - size * 0.06), 0, 1).astype(np.float32)
        canvas.blend(line * 0.8, np.broadcast_to(np.asarray([206, 178, 70], np.float32), slabs.shape))
        self._taken[np.abs(level * size) < 2] = 1
        return (mask >= 1).astype(np.uint8)

    def _road(self, canvas: Canvas) -> None:
        rng, size = self._rng, self._size
        angle = self._grid + (np.pi / 2 if rng.random() < 0.5 else 0.0)
        centre = (float(rng.uniform(0.25, 0.75) * size), float(rng.uniform(0.25, 0.75) * size))
        width = float(rng.uniform(0.055, 0.085) * size)
        number = self._claim("Road")
        strip = place(box(3.0 * size, width), centre, 1.0, angle)
        verge = place(box(3.0 * size, width * 1.45), centre, 1.0, angle)
        canvas.fill(verge, vary(rng, (170, 158, 132), 6), 6.0)
        canvas.fill(strip, vary(rng, (104, 104, 107), 6), 5.0, number)
        dash = size * 0.035
        for i in range(-40, 41):
            mark = place(box(dash, max(size / 128, 1.0), i * dash * 2.2), centre, 1.0, angle)
            canvas.fill(mark, (226.0, 224.0, 210.0), 0.0, opacity=0.9)
        self._mark(verge, 1)

    def _mark(self, polygon: Polygon, margin: int) -> None:
        layer = np.zeros_like(self._taken)
        cv2.fillPoly(layer, [np.round(polygon).astype(np.int32)], 1)
        kernel = np.ones((2 * margin + 1, 2 * margin + 1), np.uint8)
        self._taken |= cv2.dilate(layer, kernel)

    def _things(self, canvas: Canvas, layout: Layout, feature: NDArray[np.uint8]) -> None:
        rng = self._rng
        weights = np.asarray([t.weight for t in layout.may])
        order = rng.choice(len(layout.may), len(layout.may), replace=False, p=weights / weights.sum())
        kinds = list(layout.must) + [layout.may[int(i)] for i in order]
        placed = 0
        for kind in kinds:
            if placed >= self._targets:
                break
            wanted = int(rng.choice([1, 2, 3], p=[0.12, 0.44, 0.44]))
            wanted = max(wanted, 2) if kind in layout.must else wanted
            for _ in range(min(wanted, self._targets - placed)):
                placed += self._place(canvas, kind, feature)

    def _place(self, canvas: Canvas, kind: Thing, feature: NDArray[np.uint8]) -> bool:
        rng, size = self._rng, self._size
        near = self._near.setdefault(kind.category, np.zeros((size, size), np.uint8))
        for _ in range(_ATTEMPTS):
            length, aspect = float(rng.uniform(*kind.length) * size), float(rng.uniform(*kind.aspect))
            turn = (
                self._grid + float(rng.integers(4)) * np.pi / 2 if kind.aligned else rng.uniform(0, 2 * np.pi)
            )
            x, y = (float(v) for v in rng.uniform(0.06, 0.94, 2) * size)
            pose = Pose((x, y), length, turn, aspect)
            footprint = pose.at(box(1.0, aspect))
            if footprint.min() < 1 or footprint.max() > size - 2 or near[int(y), int(x)]:
                continue
            if not self._free(footprint, near, feature, kind.ground):
                continue
            number = self._claim(kind.category)
            colour = kind.painter(canvas, rng, pose, number)
            if colour:
                self._colours[number] = colour
            self._mark(footprint, max(2, size // 50))
            layer = (canvas.instances == number).astype(np.uint8)
            near |= cv2.dilate(layer, np.ones((2 * self._gap + 1,) * 2, np.uint8))
            return True
        return False

    def _free(
        self, footprint: Polygon, near: NDArray[np.uint8], feature: NDArray[np.uint8], ground: str
    ) -> bool:
        x0, y0 = np.floor(footprint.min(0)).astype(int)
        x1, y1 = np.ceil(footprint.max(0)).astype(int) + 1
        window = (slice(y0, y1), slice(x0, x1))
        layer = np.zeros((y1 - y0, x1 - x0), np.uint8)
        cv2.fillPoly(layer, [np.round(footprint - np.asarray([x0, y0], np.float32)).astype(np.int32)], 1)
        if (layer & (near[window] | self._taken[window])).any():
            return False
        inside = bool((layer & (1 - feature[window])).any() == 0)
        outside = bool((layer & feature[window]).any() == 0)
        return inside if ground == "feature" else outside
