"""Label Studio's way to ask a model: tasks and a labelling configuration in, brushes and polygons out.

The requests and answers are those that its documentation records ("Machine learning integration", "Import
pre-annotations", the brush format of its converter). No code of it is needed.
"""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from defusedxml import ElementTree
from numpy.typing import NDArray

from unigeoseg.errors import UserError
from unigeoseg.outlines import mask_polygons
from unigeoseg.question import Question
from unigeoseg.samples.prompts import MAX_POINTS

#: Bits of the brush format: a value, and the four lengths of runs, of which the last is used here.
_WORD, _SIZES = 8, (3, 4, 8, 16)
_LONGEST = 1 << _SIZES[-1]
#: Result types in the order in which they are preferred.
_KINDS = ("brushlabels", "polygonlabels")


@dataclass(frozen=True)
class Tag:
    """A control of a labelling configuration.

    Attributes:
        kind: of its results, such as ``brushlabels``.
        name: of the control.
        image: name of the image that it marks.
        labels: what is asked for each of its labels: its hint, or "the" and its name.
    """

    kind: str
    name: str
    image: str
    labels: dict[str, str]


@dataclass(frozen=True)
class LabelConfig:
    """A labelling configuration.

    Attributes:
        images: field of the tasks' data that holds each image's address, by the image's name.
        tags: its controls that take masks.
    """

    images: dict[str, str]
    tags: list[Tag]

    @classmethod
    def parse(cls, text: str) -> "LabelConfig":
        """From its XML.

        Raises:
            UserError: it is damaged, or has no image or no control for masks.
        """
        try:
            tree = ElementTree.fromstring(text)
        except (ElementTree.ParseError, ValueError) as error:  # entities are refused as ValueErrors
            raise UserError(f"the labelling configuration is no sound XML ({error})") from error
        images = {
            str(node.get("name")): str(node.get("value", "")).removeprefix("$") for node in tree.iter("Image")
        }
        tags = []
        for node in tree.iter():
            kind = str(node.tag).lower()
            if kind in _KINDS and node.get("toName") in images:
                labels = {
                    name: str(one.get("hint") or f"the {name.lower()}")
                    for one in node.iter("Label")
                    if (name := one.get("value"))
                }
                tags.append(Tag(kind, str(node.get("name")), str(node.get("toName")), labels))
        if not images or not tags:
            raise UserError(
                "the labelling configuration has no Image with BrushLabels or PolygonLabels: add one, as "
                '<BrushLabels name="brush" toName="image"><Label value="Building"/></BrushLabels>'
            )
        return cls(images, sorted(tags, key=lambda tag: _KINDS.index(tag.kind)))

    def tag_of(self, label: str | None) -> Tag:
        """The control whose results a label becomes, brushes before polygons."""
        return next((tag for tag in self.tags if label in tag.labels), self.tags[0])


def clicked(context: dict[str, Any]) -> tuple[Question, str | None] | None:
    """What was marked with a smart tool, and its label; ``None``: nothing that the model takes.

    Points that say "not here" are left out: the model knows none.

    Raises:
        UserError: coordinates lie outside of the picture.
    """
    points: list[tuple[float, float]] = []
    label = None
    for result in context.get("result") or []:
        value, kind = result.get("value", {}), str(result.get("type", ""))
        label = next(iter(value.get(kind) or []), label)
        x, y = float(value.get("x", 0)) / 100, float(value.get("y", 0)) / 100
        if kind.startswith("rectangle"):
            box = x, y, x + float(value["width"]) / 100, y + float(value["height"]) / 100
            corners = [min(max(v, 0.0), 1.0) for v in box]
            return Question.ask(box=corners), label
        if kind.startswith("keypoint") and int(result.get("is_positive", 1)):
            points.append((x, y))
    return (Question.ask(points=points[-MAX_POINTS:]), label) if points else None


def asked(config: LabelConfig) -> Iterator[tuple[Question, str]]:
    """What is asked of a picture that nobody marked: a phrase for each label."""
    seen = set()
    for tag in config.tags:
        for label, text in tag.labels.items():
            if label not in seen:
                seen.add(label)
                yield Question.ask(text), label


def regions(mask: NDArray[np.bool_], score: float, tag: Tag, label: str | None) -> list[dict[str, Any]]:
    """A mask as results: one brush, or a polygon for each of its regions (without their holes).

    Args:
        mask: bool ``[H, W]`` at the picture's size.
        score: of the mask.
        tag: whose results they are.
        label: of them.
    """
    if not mask.any():
        return []
    height, width = mask.shape
    labels = [label] if label else list(tag.labels)[:1]
    common = {
        "from_name": tag.name,
        "to_name": tag.image,
        "type": tag.kind,
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "score": score,
        "readonly": False,
    }
    values: list[dict[str, Any]] = []
    if tag.kind == "brushlabels":
        values = [{"format": "rle", "rle": brush(mask), "brushlabels": labels}]
    else:
        for shape in mask_polygons(mask):
            ring = [[100 * x / width, 100 * y / height] for x, y in shape["coordinates"][0][:-1]]
            values.append({"points": ring, "closed": True, "polygonlabels": labels})
    return [{**common, "id": uuid.uuid4().hex[:10], "value": value} for value in values]


def brush(mask: NDArray[np.bool_]) -> list[int]:
    """A mask in the format of brushes: four bytes a pixel, row by row, as runs of equal bytes, bit-packed.

    The head is the number of bytes (32 bits), the bits of a value less one (5), and four lengths of runs less
    one (4 each); a run is 1, which of the lengths (2), its length less one, its value.

    Args:
        mask: bool ``[H, W]``.
    """
    flat = mask.ravel()
    starts = np.flatnonzero(np.diff(flat, prepend=~flat[:1]))
    lengths = 4 * np.diff(np.append(starts, len(flat))).astype(np.int64)
    values = np.where(flat[starts], 255, 0)
    parts = -(-lengths // _LONGEST)
    last = np.cumsum(parts) - 1
    sizes = np.full(int(parts.sum()), _LONGEST, np.int64)
    sizes[last] = lengths - (parts - 1) * _LONGEST
    head = [(len(flat) * 4, 32), (_WORD - 1, 5), *((size - 1, 4) for size in _SIZES)]
    bits = [_bits(np.asarray([number]), count).ravel() for number, count in head]
    run = np.empty((len(sizes), 3 + _SIZES[-1] + _WORD), np.uint8)
    run[:, :3] = 1  # a run, of the last length
    run[:, 3:-_WORD] = _bits(sizes - 1, _SIZES[-1])
    run[:, -_WORD:] = _bits(np.repeat(values, parts), _WORD)
    return [int(byte) for byte in np.packbits(np.concatenate([*bits, run.ravel()]))]


def _bits(numbers: NDArray[np.int64], count: int) -> NDArray[np.uint8]:
    """The last bits of numbers, the highest first, ``[N, count]``."""
    return np.asarray((numbers[:, None] >> np.arange(count - 1, -1, -1)) & 1, np.uint8)
