"""A sample as a store holds it, decoded: without torch, which those who build or look need not load."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Sample:
    """One image-mask-instruction triplet, decoded.

    Attributes:
        sample_id: unique and stable, ``<source>/<image key>/<task>/<n>``.
        task: one of :data:`unigeoseg.tasks.TASKS`.
        subtask: point, box, object, attribute, context, collective, absent, or none.
        instruction: the user's text; data, never tokens of the template.
        answer: the expected reply, may be empty.
        mask: uint8 ``[H, W]``, 0 or 1, at the image's own size; ``None`` at prediction time.
        box: x0, y0, x1, y1 in [0, 1] of the image, or ``None``.
        points: one to three (x, y) in [0, 1] of the image, or ``None``.
        category_id: id of the merged taxonomy, 1-117 (0 where there is none).
        category: the taxonomy's name.
        source: name of the source dataset.
        views: instruction and answer that say the same of the picture seen otherwise, one pair for each entry
            of :data:`unigeoseg.samples.view.OTHER_TURNS`, ``None`` where there is none; empty where there are
            none.
    """

    sample_id: str
    task: str
    instruction: str
    mask: NDArray[np.uint8] | None = None
    answer: str = ""
    subtask: str = "none"
    box: tuple[float, float, float, float] | None = None
    points: tuple[tuple[float, float], ...] | None = None
    category_id: int = 0
    category: str = ""
    source: str = ""
    views: tuple[tuple[str, str] | None, ...] = ()


@dataclass(frozen=True)
class ImageGroup:
    """An image, uint8 RGB ``[H, W, 3]``, with the samples that share it."""

    image: NDArray[np.uint8]
    samples: tuple[Sample, ...]
