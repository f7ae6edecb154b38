"""Yardsticks beside a result: does the model read the instruction, and what would a cheap trick reach?

All work on the masks of one image at letterboxed size: bool or 0/1 arrays ``[K, S, S]``, one per sample.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from unigeoseg.metrics import iou
from unigeoseg.samples.letterbox import Letterbox

Masks = NDArray[np.bool_]


def pair_iou(prediction: Masks, truth: Masks) -> float:
    """IoU of two masks ``[S, S]``."""
    return iou(int((prediction & truth).sum()), int((prediction | truth).sum()))


def swap_partners(tasks: Sequence[str], categories: Sequence[int], truths: Masks) -> list[list[int]]:
    """For each sample, the others on the image with the same task and category but a different mask.

    A category id of 0 or less means that there is none; it has no partners.
    """
    return [
        [
            j
            for j in range(len(tasks))
            if j != i
            and tasks[j] == tasks[i]
            and categories[j] == categories[i] > 0
            and not np.array_equal(truths[j], truths[i])
        ]
        for i in range(len(tasks))
    ]


def swapped_ious(predictions: Masks, truths: Masks, partners: Sequence[Sequence[int]]) -> list[float | None]:
    """Mean IoU of the predictions for the partners' instructions with the sample's own truth.

    A model that only finds the category scores as high here as under its own instruction. ``None`` where a
    sample has no partner.
    """
    return [
        float(np.mean([pair_iou(predictions[j], truths[i]) for j in others])) if others else None
        for i, others in enumerate(partners)
    ]


def filled_box(truth: Masks) -> Masks:
    """The truth's tight bounding box, filled: what a box prompt gives without looking at the image."""
    filled = np.zeros_like(truth)
    rows, columns = np.flatnonzero(truth.any(1)), np.flatnonzero(truth.any(0))
    if len(rows):
        filled[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
    return filled


def category_masks(categories: Sequence[int], truths: Masks) -> dict[int, Masks]:
    """The union of the regions of each category that the image's samples show."""
    return {
        category: np.any(truths[[c == category for c in categories]], axis=0) for category in set(categories)
    }


def all_foreground(height: int, width: int, size: int) -> Masks:
    """The whole image (without the letterbox padding) as one mask ``[size, size]``."""
    box = Letterbox.fit(height, width, size)
    mask = np.zeros((size, size), dtype=bool)
    mask[box.rows, box.columns] = True
    return mask
