"""Contact sheets: image, truth and prediction of best, middling, worst and random samples, with the text."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from pipelines.evaluate.data import Reader
from pipelines.evaluate.drawing import PREDICTION, TRUTH, Picture, enlarge, mark_prompt, overlay
from pipelines.evaluate.plots import literal, new_figure, save
from pipelines.evaluate.predictions import Predictions
from pipelines.evaluate.records import decode_mask
from pipelines.evaluate.yardsticks import Masks
from unigeoseg.samples.letterbox import letterbox_image, letterbox_mask
from unigeoseg.samples.sample import Sample


@dataclass(frozen=True)
class Example:
    """One sample of a sheet; masks bool ``[S, S]``, image uint8 ``[S, S, 3]``."""

    caption: str
    sample: Sample
    shape: tuple[int, int]
    image: Picture
    truth: Masks
    prediction: Masks
    iou: float


def pick_rows(
    ious: Sequence[float], images: Sequence[int], each: int = 3, seed: int = 0
) -> list[tuple[str, int]]:
    """(caption, place) of the best, the ones around the median, the worst, and random others; none twice.

    Different images are preferred; equal IoU come in an order drawn from ``seed``.
    """
    random = np.random.default_rng(seed).permutation(len(ious))
    order = random[np.argsort(-np.asarray(ious)[random], kind="stable")].tolist()
    middle = max(0, len(order) // 2 - each // 2)
    wanted = {
        "best": order,
        "median": order[middle:],
        "worst": order[::-1],
        "random": random.tolist(),
    }
    picked: list[tuple[str, int]] = []
    for caption, places in wanted.items():
        taken, seen = {place for _, place in picked}, {images[place] for _, place in picked}
        fresh: list[int] = []
        for place in places:
            if place not in taken and images[place] not in seen and len(fresh) < each:
                fresh.append(place)
                seen.add(images[place])
        others = [place for place in places if place not in taken and place not in fresh]
        picked += [(caption, place) for place in (fresh + others)[:each]]
    return picked


def examples(
    table: pa.Table, predictions: Predictions, task: str, reader: Reader, size: int, seed: int = 0
) -> list[Example]:
    """The examples of one task, read from the store again."""
    part = table.filter(pc.field("task") == task)
    images = reader.index.images[part["row"].to_numpy()].tolist()
    picked = pick_rows(part["iou"].to_pylist(), images, seed=seed)
    drawn = part.take(pa.array([place for _, place in picked], pa.int64())).to_pylist()
    masks = predictions.take([row["row"] for row in drawn]).to_pylist()
    found = []
    for (caption, _), row, mask in zip(picked, drawn, masks, strict=True):
        (loaded,) = reader.load([row["row"]])
        if loaded.image is None or loaded.sample is None or loaded.sample.mask is None:
            continue
        found.append(
            Example(
                caption,
                loaded.sample,
                (loaded.image.shape[0], loaded.image.shape[1]),
                letterbox_image(loaded.image, size),
                letterbox_mask(loaded.sample.mask, size) > 0,
                _square(decode_mask(mask["prediction"], mask["size"]), size),
                row["iou"],
            )
        )
    return found


def _square(prediction: Masks, size: int) -> Masks:
    """A prediction on the letterboxed square, whichever size it was compared at."""
    return letterbox_mask(prediction.astype(np.uint8), size) > 0


#: Inches: a cell of a sheet, one of its three pictures and where they begin, and the heading of all.
_CELL, _PICTURE, _LEFT, _BELOW, _HEADING = (6.6, 2.95), 2.06, 0.13, 0.48, 0.45


def draw_sheet(items: Sequence[Example], title: str, path: Path, columns: int = 2) -> Path:
    """Draws the examples, ``columns`` a line, each as image, truth, prediction and text."""
    lines = max(1, -(-len(items) // columns))
    width, height = _CELL[0] * columns, _CELL[1] * lines + _HEADING
    # Placed by hand: finding places by itself takes Matplotlib longer than drawing.
    figure = new_figure(width, height, layout=None)
    figure.text(0.5, 1 - 0.22 / height, literal(title), fontsize=13, ha="center", va="center")
    for number, item in enumerate(items):
        line, column = divmod(number, columns)
        corner = column * _CELL[0], height - _HEADING - (line + 1) * _CELL[1]
        _draw_example(figure, item, corner, (width, height))
    return save(figure, path)


def _draw_example(
    figure: Figure, item: Example, corner: tuple[float, float], size: tuple[float, float]
) -> None:
    """Into the cell whose lower left ``corner`` is given in inches, of a figure of ``size`` inches."""

    def place(x: float, y: float) -> tuple[float, float]:
        return (corner[0] + x) / size[0], (corner[1] + y) / size[1]

    edge = 0.03
    extent = ((_CELL[0] - 2 * edge) / size[0], (_CELL[1] - 2 * edge) / size[1])
    figure.add_artist(Rectangle(place(edge, edge), *extent, facecolor="#f1f3f7", zorder=-1))
    text = textwrap.fill(item.sample.instruction, 92, max_lines=3, placeholder=" …")
    good = (0.78, 0.13, 0.1) if item.iou < 0.3 else (0.1, 0.5, 0.2) if item.iou >= 0.6 else (0.6, 0.4, 0.0)
    title = f"{item.caption} · IoU {item.iou:.3f} · {item.sample.category}"
    middle: dict[str, Any] = {"ha": "center", "va": "center"}
    figure.text(*place(_CELL[0] / 2, 2.8), literal(title), fontsize=10, color=good, **middle)
    figure.text(*place(_CELL[0] / 2, 0.25), literal(text), fontsize=8.5, **middle)
    marked = mark_prompt(enlarge(item.image), item.sample.box, item.sample.points, item.shape)
    pictures = {
        "image": marked,
        "truth": overlay(enlarge(item.image), item.truth, TRUTH),
        "prediction": overlay(enlarge(item.image), item.prediction, PREDICTION),
    }
    side = _PICTURE / size[0], _PICTURE / size[1]
    for number, (name, picture) in enumerate(pictures.items()):
        axes = figure.add_axes((*place(_LEFT + number * (_PICTURE + 0.08), _BELOW), *side))
        axes.imshow(picture, interpolation="antialiased")
        axes.set_title(name, fontsize=8, pad=2)
        axes.set_axis_off()
