"""What a page shows at first sight: pictures with instructions that fit them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.build.sources.synthetic.source import SyntheticConfig, SyntheticSource
from pipelines.labels.taxonomy import taxonomy
from pipelines.pictures.remote import Where, where_is
from pipelines.web.images import Images, Opener
from pipelines.web.pyramid import Pyramid
from pipelines.web.store_view import StoreView
from unigeoseg.samples.sample import Sample

#: Examples of a store, and instructions of each.
_MOST, _ASKS = 6, 5
_SYNTHETIC = 4
_SIDE = 256


@dataclass(frozen=True)
class Example:
    """A picture and what may be asked of it.

    Attributes:
        image: its id.
        name: for people.
        asks: one of text, question, box and points each, in pixels, and its ``label``.
    """

    image: str
    name: str
    asks: list[dict[str, Any]]

    def describe(self) -> dict[str, Any]:
        """As JSON."""
        return {"image": self.image, "name": self.name, "asks": self.asks}


def find_examples(images: Images, files: list[str], store: StoreView | None) -> list[Example]:
    """The files that are named, then pictures of the store; generated ones where there are neither.

    Args:
        images: where they become known.
        files: pictures by path or URL, from the command line.
        store: that may be looked at.
    """
    found = []
    for path in files:
        where = where_is(path)
        name = Path(path).name
        found.append(Example(images.add("picture", name, _opener(where, name)), name, []))
    if store is not None:
        for row in store.different_images(_MOST):
            described = store.sample(row)
            asks = [_ask(sample, described["width"], described["height"]) for sample in store.beside(row)]
            found.append(Example(described["image"], described["key"], asks[:_ASKS]))
    return found or _generated(images)


def _opener(where: Where, name: str) -> Opener:
    return lambda: Pyramid.open(where, name)


def _ask(sample: Sample, width: int, height: int) -> dict[str, Any]:
    if sample.box is not None:
        x0, y0, x1, y1 = sample.box
        box = [round(x0 * width), round(y0 * height), round(x1 * width), round(y1 * height)]
        return {"box": box, "label": f"box: {sample.category}"}
    if sample.points:
        points = [[round(x * width), round(y * height)] for x, y in sample.points]
        return {"points": points, "label": f"point: {sample.category}"}
    kind = "question" if sample.task == "reasoning" else "text"
    return {kind: sample.instruction, "label": sample.instruction}


def _generated(images: Images) -> list[Example]:
    """Scenes of the synthetic source, with a phrase for what is there once, and boxes."""
    source = SyntheticSource(SyntheticConfig(scenes=_SYNTHETIC, size=_SIDE), seed=11)
    found = []
    for item in source.items():
        scene = source.read(item)
        image = images.add("scene", item.key, _held(np.ascontiguousarray(scene.pixels), item.key))
        kinds = scene.instances or {}
        asks: list[dict[str, Any]] = []
        for number, kind in sorted(kinds.items()):
            rows, columns = np.nonzero(scene.labels == number)
            if list(kinds.values()).count(kind) != 1 or not len(rows):
                continue
            noun = taxonomy()[kind].noun
            asks.append({"text": f"the {noun}", "label": f"the {noun}"})
            box = [int(v) for v in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)]
            asks.append({"box": box, "label": f"box: {noun}"})
            middle = len(rows) // 2
            asks.append({"points": [[int(columns[middle]), int(rows[middle])]], "label": f"point: {noun}"})
        found.append(Example(image, item.key.replace("_", " "), asks[:_ASKS]))
    return found


def _held(pixels: Any, name: str) -> Opener:
    return lambda: Pyramid.of_pixels(pixels, name)
