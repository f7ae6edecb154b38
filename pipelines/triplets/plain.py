"""An image with its instructions as plain JSON values, so that it can travel alone."""

from collections.abc import Callable
from typing import Any

import numpy as np

from pipelines.triplets.base import Triplet, TripletImage
from pipelines.triplets.truth import FilledBox, MaskFile, Segments, Truth

#: Names of a triplet's fields that are plain already.
_SAME = ("task", "n", "instruction", "answer", "subtask", "category", "text_file", "published_iou")


def as_plain(image: TripletImage, spelled: Callable[[str], str] = str) -> dict[str, Any]:
    """The image as values of JSON; :func:`of_plain` makes it again.

    Args:
        image: with its instructions.
        spelled: gives each of its files the path that it is read by.
    """
    return {
        "key": image.key,
        "file": spelled(image.file),
        "source": image.source,
        "triplets": [_plain(triplet, spelled) for triplet in image.triplets],
    }


def of_plain(plain: dict[str, Any]) -> TripletImage:
    """The inverse of :func:`as_plain`, also after a way through JSON."""
    triplets = tuple(_triplet(one) for one in plain["triplets"])
    return TripletImage(plain["key"], plain["file"], plain["source"], triplets)


def _plain(triplet: Triplet, spelled: Callable[[str], str]) -> dict[str, Any]:
    plain: dict[str, Any] = {name: getattr(triplet, name) for name in _SAME}
    plain["text_file"] = spelled(triplet.text_file) if triplet.text_file else ""
    if triplet.where:
        plain["where"] = triplet.where
    plain["truth"] = _plain_truth(triplet.truth, spelled)
    plain["box"] = None if triplet.box is None else list(triplet.box)
    plain["points"] = None if triplet.points is None else [list(point) for point in triplet.points]
    return plain


def _triplet(plain: dict[str, Any]) -> Triplet:
    box, points = plain["box"], plain["points"]
    return Triplet(
        truth=_truth(plain["truth"]),
        box=None if box is None else (box[0], box[1], box[2], box[3]),
        points=None if points is None else tuple((x, y) for x, y in points),
        where=plain.get("where", ""),
        **{name: plain[name] for name in _SAME},
    )


def _plain_truth(truth: Truth, spelled: Callable[[str], str]) -> dict[str, Any]:
    if isinstance(truth, MaskFile):
        return {"file": spelled(truth.file)}
    if isinstance(truth, FilledBox):
        return {"edges": list(truth.edges)}
    if isinstance(truth, Segments):
        given = truth.segments if isinstance(truth.segments, dict | list | tuple) else None
        return {"segments": _values(given), "stretches": truth.stretches}
    raise TypeError(f"{type(truth).__name__} is no form of a mask that is known here")


def _values(value: Any) -> Any:
    """Values of JSON, numbers of numpy made plain; what else a pickle may hold is no mask: ``None``."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(name): _values(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_values(part) for part in value]
    return value if isinstance(value, str | int | float | None) else None


def _truth(plain: dict[str, Any]) -> Truth:
    if "file" in plain:
        return MaskFile(plain["file"])
    if "edges" in plain:
        return FilledBox(tuple(plain["edges"]))
    return Segments(plain["segments"], plain["stretches"])
