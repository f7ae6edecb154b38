"""COCO's ``segmentation`` in the forms in which tools write it: polygons, and runs (RLE) of two kinds.

Format: cocodataset.org/#format-data and ``maskApi.c`` of cocoapi. Runs go down the columns, begin with 0, and
must fill the picture: too few would leave memory uninitialised in ``pycocotools`` (cocoapi issue 369).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.store.record import BadRecord, decode_mask

Ring = NDArray[np.float64]


@dataclass(frozen=True)
class Segmentation:
    """What an object covers: the union of both.

    Attributes:
        rings: corners of polygons, float64 ``[N, 2]`` x, y in pixels.
        mask: uint8 0/1 ``[H, W]`` from runs.
    """

    rings: tuple[Ring, ...]
    mask: NDArray[np.uint8] | None


def parse_segmentation(value: Any, height: int, width: int) -> Segmentation:
    """Reads a ``segmentation`` of a picture of this size.

    A list of polygons (flat numbers, or pairs), one polygon that is not in a list, one RLE, a list of RLEs.
    A polygon of fewer than three corners has no area: it is left out beside others, and refused alone.

    Raises:
        BadRecord: ``unreadable_mask`` or ``mask_size``.
    """
    parts = _parts(value)
    rings: list[Ring] = []
    mask: NDArray[np.uint8] | None = None
    for part in parts:
        if isinstance(part, dict):
            layer = _runs(part, height, width)
            mask = layer if mask is None else mask | layer
        elif (ring := _ring(part)) is not None:
            rings.append(ring)
    if not rings and mask is None:
        raise BadRecord("unreadable_mask", "a segmentation without a polygon of three corners")
    return Segmentation(tuple(rings), mask)


def _parts(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [value]
    if not isinstance(value, list | tuple):
        raise BadRecord("unreadable_mask", f"a segmentation of type {type(value).__name__}")
    if not value:
        raise BadRecord("unreadable_mask", "the segmentation is empty")
    return [value] if isinstance(value[0], int | float) else list(value)


def _ring(part: Any) -> Ring | None:
    """The corners of a polygon; ``None`` for fewer than three."""
    try:
        numbers = np.asarray(part, np.float64)
    except (TypeError, ValueError) as error:
        raise BadRecord("unreadable_mask", f"a polygon that is not made of numbers: {error}") from error
    if numbers.ndim == 1 and len(numbers) % 2 == 0:
        numbers = numbers.reshape(-1, 2)
    if numbers.ndim != 2 or numbers.shape[1] != 2 or not np.isfinite(numbers).all():
        raise BadRecord("unreadable_mask", f"a polygon of shape {list(numbers.shape)} is no list of x, y")
    if len(numbers) > 3 and (numbers[0] == numbers[-1]).all():
        numbers = numbers[:-1]
    return numbers if len(numbers) >= 3 else None


def _runs(part: dict[str, Any], height: int, width: int) -> NDArray[np.uint8]:
    counts = part.get("counts")
    if isinstance(counts, str):
        return decode_mask(part, height, width)
    try:
        size = [int(v) for v in part["size"]]
        given = np.asarray(counts, np.float64)
    except (KeyError, TypeError, ValueError) as error:
        raise BadRecord("unreadable_mask", f"no COCO RLE: {error!r}") from error
    if size != [height, width]:
        raise BadRecord("mask_size", f"the mask is {size}, the image {[height, width]}")
    whole = given.ndim == 1 and np.isfinite(given).all() and (given >= 0).all() and (given % 1 == 0).all()
    if not whole:
        raise BadRecord("unreadable_mask", "the runs of an RLE must be whole numbers from 0 on")
    if given.sum() != height * width:
        raise BadRecord(
            "unreadable_mask",
            f"the runs cover {given.sum():.0f} pixels, the picture of {width}x{height} has {height * width}",
        )
    runs = given.astype(np.int64)
    columns = np.repeat(np.arange(len(runs)) % 2, runs).astype(np.uint8)
    return np.ascontiguousarray(columns.reshape(width, height).T)
