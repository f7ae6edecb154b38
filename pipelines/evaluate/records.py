"""What an evaluation keeps of a sample: one table row, the same from every worker."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pycocotools import mask as coco_mask

from pipelines.evaluate.yardsticks import Masks
from unigeoseg.metrics import box_counts, iou
from unigeoseg.samples.sample import Sample

#: Yardsticks, each an IoU with the sample's truth (see :mod:`pipelines.evaluate.yardsticks`).
YARDSTICKS = ("untrained_iou", "all_foreground_iou", "swapped_iou", "filled_box_iou", "category_iou")

#: Columns of a worker's table. ``presence`` has the scores of :data:`pipelines.evaluate.presence.SCORES`,
#: null for interactive samples; ``mask_size`` is that of a mask which was stretched to its picture, else
#: null. Predictions, yardsticks and counts at other thresholds are null where they were not asked for.
SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("sample_id", pa.string()),
        ("task", pa.string()),
        ("subtask", pa.string()),
        ("source", pa.string()),
        ("category_id", pa.int32()),
        ("category", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("mask_size", pa.list_(pa.int32())),
        ("truth_share", pa.float64()),
        ("truth_area", pa.int64()),
        ("predicted_share", pa.float64()),
        ("intersection", pa.int64()),
        ("union", pa.int64()),
        ("iou", pa.float64()),
        ("presence", pa.list_(pa.float64())),
        ("inter_at", pa.list_(pa.int64())),
        ("union_at", pa.list_(pa.int64())),
        ("prediction", pa.string()),
        ("size", pa.list_(pa.int32())),
        *[(name, pa.float64()) for name in YARDSTICKS],
    ]
)


@dataclass
class Portion:
    """A worker's answer: a table by :data:`SCHEMA`, and (sample id, reason) of unusable samples."""

    table: pa.Table
    bad: list[tuple[str, str]]
    number: int = 0


def describe(
    row: int, sample: Sample, prediction: Masks, truth: Masks, boxes: bool = False
) -> dict[str, Any]:
    """The columns up to ``iou`` of one sample.

    Args:
        row: of the index.
        sample: with its mask at the image's size.
        prediction: bool ``[H, W]`` at the size at which masks are compared.
        truth: the same shape.
        boxes: compares the boxes of the largest components instead of the masks.
    """
    assert sample.mask is not None
    if boxes:
        intersection, union = box_counts(prediction, truth)
    else:
        intersection, union = int((prediction & truth).sum()), int((prediction | truth).sum())
    return {
        "row": row,
        "sample_id": sample.sample_id,
        "task": sample.task,
        "subtask": sample.subtask,
        "source": sample.source,
        "category_id": sample.category_id,
        "category": sample.category,
        "height": sample.mask.shape[0],
        "width": sample.mask.shape[1],
        "truth_share": float(sample.mask.mean()),
        "truth_area": int(truth.sum()),
        "predicted_share": float(prediction.mean()),
        "intersection": intersection,
        "union": union,
        "iou": iou(intersection, union),
    }


def encode_mask(mask: Masks) -> dict[str, Any]:
    """A mask ``[H, W]`` as ``{"prediction": COCO RLE counts, "size": [H, W]}``."""
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"prediction": rle["counts"].decode("ascii"), "size": [int(v) for v in rle["size"]]}


def decode_mask(counts: str, size: list[int]) -> Masks:
    """The inverse of :func:`encode_mask`, bool ``[H, W]``."""
    return np.asarray(coco_mask.decode({"counts": counts.encode("ascii"), "size": size})) > 0
