"""Contact sheets: image, truth and prediction of best, middling, worst and random samples, with the text."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure

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


def draw_sheet(items: Sequence[Example], title: str, path: Path, columns: int = 2) -> Path:
    """Draws the examples, ``columns`` a line, each as image, truth, prediction and text."""
    lines = max(1, -(-len(items) // columns))
    figure = new_figure(6.6 * columns, 2.95 * lines + 0.6)
    figure.suptitle(literal(title), fontsize=13)
    grid = figure.subfigures(lines, columns, squeeze=False, wspace=0.015, hspace=0.015)
    cells = np.asarray(grid).ravel()
    for cell, item in zip(cells, items, strict=False):
        _draw_example(cell, item)
    return save(figure, path)


def _draw_example(cell: SubFigure, item: Example) -> None:
    cell.set_facecolor("#f1f3f7")
    text = textwrap.fill(item.sample.instruction, 92, max_lines=3, placeholder=" …")
    good = (0.78, 0.13, 0.1) if item.iou < 0.3 else (0.1, 0.5, 0.2) if item.iou >= 0.6 else (0.6, 0.4, 0.0)
    title = f"{item.caption} · IoU {item.iou:.3f} · {item.sample.category}"
    cell.suptitle(literal(title), fontsize=10, color=good)
    cell.supxlabel(literal(text), fontsize=8.5)
    image, truth, prediction = cell.subplots(1, 3)
    _show(image, mark_prompt(enlarge(item.image), item.sample.box, item.sample.points, item.shape), "image")
    _show(truth, overlay(enlarge(item.image), item.truth, TRUTH), "truth")
    _show(prediction, overlay(enlarge(item.image), item.prediction, PREDICTION), "prediction")


def _show(axes: Axes, picture: Picture, title: str) -> None:
    axes.imshow(picture, interpolation="antialiased")
    axes.set_title(title, fontsize=8, pad=2)
    axes.set_axis_off()
