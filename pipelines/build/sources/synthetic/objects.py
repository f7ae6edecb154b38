"""Things seen from above; a painter draws one, claims its visible pixels and says its colour word."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipelines.build.sources.synthetic.canvas import Canvas, Polygon, box, ellipse, place
from pipelines.build.sources.synthetic.texture import Colour, vary

WHITE: Colour = (232.0, 233.0, 230.0)


@dataclass(frozen=True)
class Pose:
    """Where a thing stands.

    Attributes:
        centre: x, y in pixels.
        length: pixels along its own x axis.
        angle: radians.
        aspect: width over length.
    """

    centre: tuple[float, float]
    length: float
    angle: float
    aspect: float

    def at(self, template: Polygon) -> Polygon:
        """A template in units of the length, moved to this pose."""
        return place(template, self.centre, self.length, self.angle)


Painter = Callable[[Canvas, np.random.Generator, Pose, int], str | None]

ROOFS: dict[str, Colour] = {
    "red": (172, 74, 56),
    "grey": (140, 140, 143),
    "white": (222, 220, 214),
    "brown": (116, 86, 64),
    "blue": (76, 104, 158),
}
HULLS: dict[str, Colour] = {"white": (228, 229, 226), "red": (158, 58, 50), "grey": (120, 124, 130)}
COURTS: dict[str, Colour] = {"blue": (62, 104, 160), "green": (66, 128, 86), "red": (170, 86, 66)}
CABS: dict[str, Colour] = {
    "white": WHITE,
    "blue": (60, 92, 160),
    "red": (176, 54, 48),
    "yellow": (214, 178, 60),
}
CARS: tuple[Colour, ...] = ((200, 40, 40), (230, 230, 230), (40, 50, 90), (30, 30, 32))
CROPS: dict[str, Colour] = {"green": (96, 140, 62), "yellow": (196, 176, 92), "brown": (134, 104, 74)}


def _pick(rng: np.random.Generator, palette: dict[str, Colour]) -> tuple[str, Colour]:
    name = list(palette)[int(rng.integers(len(palette)))]
    return name, vary(rng, palette[name], 5.0)


def _shade(colour: Colour, factor: float) -> Colour:
    r, g, b = (min(255.0, v * factor) for v in colour)
    return r, g, b


def building(canvas: Canvas, rng: np.random.Generator, pose: Pose, instance: int) -> str | None:
    """A roof: gabled in two shades, or flat with plant on it; sometimes L-shaped."""
    name, colour = _pick(rng, ROOFS)
    outline = box(1.0, pose.aspect)
    a = pose.aspect / 2
    if rng.random() < 0.35:
        cut_x, cut_y = rng.uniform(-0.05, 0.2), rng.uniform(-0.1, 0.2) * pose.aspect
        corners = [[-0.5, -a], [0.5, -a], [0.5, cut_y], [cut_x, cut_y], [cut_x, a], [-0.5, a]]
        outline = np.asarray(corners, np.float32)
    shape = pose.at(outline)
    canvas.shadow(shape, pose.length * rng.uniform(0.16, 0.3))
    canvas.fill(shape, colour, 5.0, instance)
    if len(outline) == 4 and name in ("red", "brown"):
        canvas.fill(pose.at(box(1.0, a, 0.0, a / 2)), _shade(colour, 0.78), 4.0)
        canvas.fill(pose.at(box(1.0, 0.045)), _shade(colour, 1.2), 0.0)
    else:
        for _ in range(int(rng.integers(2, 5))):
            x, y = rng.uniform(-0.4, 0.0), rng.uniform(-0.35, 0.0) * pose.aspect
            canvas.fill(pose.at(box(0.12, 0.09, x, y)), _shade(colour, rng.choice([0.72, 1.18])), 0.0)
    return name


def ship(canvas: Canvas, rng: np.random.Generator, pose: Pose, instance: int) -> str | None:
    """A hull with pointed bow, deck, bridge and a wake-dark rim."""
    name, colour = _pick(rng, HULLS)
    a = pose.aspect / 2
    hull = np.asarray(
        [[-0.5, -a * 0.8], [0.22, -a], [0.4, -a * 0.6], [0.5, 0], [0.4, a * 0.6], [0.22, a], [-0.5, a * 0.8]],
        np.float32,
    )
    shape = pose.at(hull)
    canvas.shadow(shape, pose.length * 0.08, 0.4)
    canvas.fill(shape, colour, 3.0, instance)
    canvas.fill(pose.at(hull * np.asarray([0.8, 0.6], np.float32)), _shade(colour, 0.8), 3.0)
    canvas.fill(pose.at(box(0.16, pose.aspect * 0.7, -0.32)), WHITE, 0.0)
    for x in (-0.1, 0.06, 0.22):
        canvas.fill(pose.at(box(0.09, pose.aspect * 0.45, x)), vary(rng, (150, 110, 80), 25.0), 0.0)
    return name


def airplane(canvas: Canvas, rng: np.random.Generator, pose: Pose, instance: int) -> str | None:
    """Fuselage, swept wings, tailplane and engines."""
    name, colour = ("white", WHITE) if rng.random() < 0.6 else ("grey", (150.0, 153.0, 158.0))
    colour = vary(rng, colour, 4.0)
    body = np.asarray(
        [[-0.5, -0.035], [0.36, -0.06], [0.47, -0.035], [0.5, 0], [0.47, 0.035], [0.36, 0.06], [-0.5, 0.035]],
        np.float32,
    )
    wing = np.asarray([[0.16, 0.0], [-0.12, 0.47], [-0.2, 0.47], [-0.07, 0.0]], np.float32)
    tail = np.asarray([[-0.34, 0.0], [-0.46, 0.19], [-0.51, 0.19], [-0.47, 0.0]], np.float32)
    flip = np.asarray([1, -1], np.float32)
    parts = [pose.at(p) for p in (body, wing, wing * flip, tail, tail * flip)]
    for part in parts:
        canvas.shadow(part, pose.length * 0.07, 0.3)
    for part in parts[1:] + parts[:1]:
        canvas.fill(part, colour, 2.0, instance)
    for y in (-0.2, 0.2):
        canvas.fill(pose.at(ellipse(0.11, 0.05, 0.05, y)), _shade(colour, 0.7), 0.0, instance)
    canvas.fill(pose.at(box(0.8, 0.018)), _shade(colour, 0.85), 0.0)
    return name


def tank(canvas: Canvas, rng: np.random.Generator, pose: Pose, instance: int) -> str | None:
    """A cylinder: bright lid, rim, and the curved shadow at one side."""
    name, colour = ("white", (226.0, 226.0, 222.0)) if rng.random() < 0.7 else ("brown", (158.0, 118.0, 92.0))
    colour = vary(rng, colour, 5.0)
    shape = pose.at(ellipse(1.0, 1.0))
    canvas.shadow(shape, pose.length * rng.uniform(0.2, 0.4))
    canvas.fill(shape, _shade(colour, 0.82), 2.0, instance)
    canvas.fill(pose.at(ellipse(0.84, 0.84)), colour, 3.0)
    canvas.fill(pose.at(box(0.84, 0.05)), _shade(colour, 0.86), 0.0)
    canvas.fill(pose.at(ellipse(0.16, 0.16)), _shade(colour, 0.75), 0.0)
    return name


def pool(canvas: Canvas, rng: np.random.Generator, pose: Pose, instance: int) -> str | None:
    """Turquoise water in a light surround; rectangular, round or kidney-shaped."""
    kind = rng.random()
    shape: Polygon = box(1.0, pose.aspect)
    if kind > 0.5:
        shape = ellipse(1.0, pose.aspect)
        if kind > 0.75:
            shape[:, 1] += 0.16 * np.cos(shape[:, 0] * 5.0)
    canvas.fill(pose.at(shape * 1.22), vary(rng, (206, 196, 178), 6.0), 4.0)
    canvas.fill(pose.at(shape), vary(rng, (70, 178, 204), 9.0), 7.0, instance)
    canvas.fill(pose.at(shape * 0.6), vary(rng, (46, 152, 190), 6.0), 6.0)
    return None


def _court(canvas: Canvas, rng: np.random.Generator, pose: Pose, instance: int) -> str:
    name, colour = _pick(rng, COURTS)
    canvas.fill(pose.at(box(1.0, pose.aspect)), colour, 3.0, instance)
    return name


def tennis_court(canvas: Canvas, rng: np.random.Generator, pose: Pose, instance: int) -> str | None:
    """Outer area, inner area in another shade, lines and net."""
    name = _court(canvas, rng, pose, instance)
    a, line = pose.aspect, 1.1 / pose.length
    inner = _shade(COURTS[name], 1.25)
    canvas.fill(pose.at(box(0.8, a * 0.7)), WHITE, 0.0)
    canvas.fill(pose.at(box(0.8 - 2 * line, a * 0.7 - 2 * line)), inner, 3.0)
    canvas.fill(pose.at(box(line, a * 0.9)), WHITE, 0.0)
    canvas.fill(pose.at(box(0.42, line)), WHITE, 0.0)
    return name


def basketball_court(canvas: Canvas, rng: np.random.Generator, pose: Pose, instance: int) -> str | None:
    """Centre circle and the two keys."""
    name = _court(canvas, rng, pose, instance)
    key = (196.0, 132.0, 80.0) if name != "red" else (92.0, 120.0, 150.0)
    for side in (-1, 1):
        canvas.fill(pose.at(ellipse(0.34, pose.aspect * 0.7, side * 0.38)), WHITE, 0.0)
        canvas.fill(pose.at(ellipse(0.28, pose.aspect * 0.58, side * 0.38)), COURTS[name], 0.0)
        canvas.fill(pose.at(box(0.2, pose.aspect * 0.3, side * 0.38)), key, 2.0)
    canvas.fill(pose.at(ellipse(0.2, 0.2)), WHITE, 0.0)
    canvas.fill(pose.at(ellipse(0.13, 0.13)), key, 0.0)
    return name


def soccer_field(canvas: Canvas, rng: np.random.Generator, pose: Pose, instance: int) -> str | None:
    """Mown stripes, centre circle, halfway line and penalty areas."""
    green = vary(rng, (74, 132, 62), 6.0)
    a, line = pose.aspect, 1.0 / pose.length
    canvas.fill(pose.at(box(1.0, a)), green, 4.0, instance)
    for i in range(-4, 4, 2):
        canvas.fill(pose.at(box(0.118, a, (i + 0.5) * 0.122)), _shade(green, 1.16), 3.0)
    for x, w, h in ((0.0, line, a), (-0.42, 0.16, a * 0.5), (0.42, 0.16, a * 0.5)):
        canvas.fill(pose.at(box(w, h, x)), WHITE, 0.0, opacity=0.9 if w == line else 0.35)
    canvas.fill(pose.at(ellipse(0.22, 0.22)), WHITE, 0.0, opacity=0.6)
    canvas.fill(pose.at(ellipse(0.16, 0.16)), green, 0.0)
    return None


def field(canvas: Canvas, rng: np.random.Generator, pose: Pose, instance: int) -> str | None:
    """A parcel of crops with drill rows and a headland."""
    name, colour = _pick(rng, CROPS)
    a = pose.aspect
    skew = rng.uniform(-0.06, 0.06, (4, 2)).astype(np.float32)
    canvas.fill(pose.at(box(1.0, a) + skew), colour, 14.0, instance)
    rows = int(rng.integers(5, 9))
    for i in range(rows):
        y = (i + 0.5) / rows * a * 0.86 - a * 0.43
        canvas.fill(pose.at(box(0.86, a * 0.32 / rows, 0.0, y)), _shade(colour, 0.86), 6.0, opacity=0.8)
    return name


def parking(canvas: Canvas, rng: np.random.Generator, pose: Pose, instance: int) -> str | None:
    """Asphalt with rows of marked bays, some of them taken."""
    a = pose.aspect
    canvas.fill(pose.at(box(1.0, a)), vary(rng, (92, 93, 97), 5.0), 6.0, instance)
    bays = 7
    for row in (-1, 1):
        for i in range(bays):
            x = (i + 0.5) / bays * 0.9 - 0.45
            line = box(0.8 / pose.length, a * 0.3, x - 0.062, row * a * 0.3)
            canvas.fill(pose.at(line), WHITE, 0.0, opacity=0.8)
            if rng.random() < 0.5:
                paint = vary(rng, CARS[int(rng.integers(len(CARS)))])
                canvas.fill(pose.at(box(0.07, a * 0.24, x, row * a * 0.3)), paint, 0.0)
    return None


def truck(canvas: Canvas, rng: np.random.Generator, pose: Pose, instance: int) -> str | None:
    """A trailer, its cab, and a short shadow."""
    name, colour = _pick(
        rng, {"white": WHITE, "blue": (60, 92, 160), "red": (176, 54, 48), "yellow": (214, 178, 60)}
    )
    shape = pose.at(box(1.0, pose.aspect))
    canvas.shadow(shape, pose.length * 0.14, 0.45)
    canvas.fill(shape, colour, 2.0, instance)
    canvas.fill(pose.at(box(0.2, pose.aspect, 0.4)), _shade(colour, 0.7), 0.0)
    canvas.fill(pose.at(box(0.05, pose.aspect, 0.28)), (40.0, 40.0, 44.0), 0.0)
    return name


def trees(canvas: Canvas, rng: np.random.Generator, pose: Pose, instance: int) -> str | None:
    """A clump of crowns, each lit from one side."""
    count = 46
    t, r = rng.uniform(0, 2 * np.pi, count), np.sqrt(rng.uniform(0, 1, count)) * 0.42
    wave = 1.0 + 0.16 * np.sin(3 * t + rng.uniform(0, 6.28))
    spots = np.stack([r * wave * np.cos(t), r * wave * np.sin(t) * pose.aspect], 1)
    base = vary(rng, (50, 84, 44), 6.0)
    outline = np.linspace(0, 2 * np.pi, 30, endpoint=False)
    edge = 0.42 * (1.0 + 0.1 * np.sin(3 * outline + 1) + rng.normal(0, 0.04, 30))
    shape = np.stack([edge * np.cos(outline), edge * np.sin(outline) * pose.aspect], 1).astype(np.float32)
    canvas.shadow(pose.at(shape), pose.length * 0.09, 0.45)
    canvas.fill(pose.at(shape), base, 10.0, instance)
    for x, y in spots:
        width = rng.uniform(0.11, 0.2)
        tone = _shade(base, rng.uniform(0.8, 1.5))
        canvas.fill(pose.at(ellipse(width, width, x, y, 9)), _shade(tone, 0.72), 3.0, instance)
        canvas.fill(pose.at(ellipse(width * 0.66, width * 0.66, x - 0.015, y - 0.015, 9)), tone, 5.0)
    return None


def pond(canvas: Canvas, rng: np.random.Generator, pose: Pose, instance: int) -> str | None:
    """Still water with a muddy bank."""
    t = np.linspace(0, 2 * np.pi, 36, endpoint=False)
    edge = 0.46 * (1 + 0.13 * np.sin(2 * t + rng.uniform(0, 6)) + 0.07 * np.sin(5 * t + rng.uniform(0, 6)))
    shape = np.stack([edge * np.cos(t), edge * np.sin(t) * pose.aspect], 1).astype(np.float32)
    canvas.fill(pose.at(shape * 1.12), vary(rng, (116, 104, 78), 6.0), 8.0)
    canvas.fill(pose.at(shape), vary(rng, (48, 78, 92), 8.0), 7.0, instance)
    canvas.fill(pose.at(shape * 0.6), vary(rng, (38, 64, 82), 5.0), 6.0, opacity=0.6)
    return None


def greenhouse(canvas: Canvas, rng: np.random.Generator, pose: Pose, instance: int) -> str | None:
    """Rows of bright plastic tunnels."""
    colour = vary(rng, (196, 206, 208), 6.0)
    shape = pose.at(box(1.0, pose.aspect))
    canvas.shadow(shape, pose.length * 0.07, 0.35)
    canvas.fill(shape, colour, 4.0, instance)
    for i in range(4):
        y = (i + 0.5) / 4 * pose.aspect - pose.aspect / 2
        canvas.fill(pose.at(box(0.98, pose.aspect * 0.09, 0.0, y)), _shade(colour, 0.72), 2.0)
    return None
