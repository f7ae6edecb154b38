"""Ready samples of a benchmark as a tile: nothing is cut, filtered or written anew."""

from collections import Counter
from typing import Any

from pipelines.build.encode import encode_mask, encode_png
from pipelines.build.sources.base import Source, SourceImage, SourceItem, UnusableImage
from pipelines.build.tile import Tile
from pipelines.labels.stages import StageCounts
from pipelines.labels.taxonomy import taxonomy
from unigeoseg.tasks import TASKS


def ready_tile(source: Source, item: SourceItem, image: SourceImage, counts: StageCounts) -> Tile:
    """An image with its triplets as they are.

    Raises:
        UnusableImage: a mask of another size than the image, or an unknown task.
    """
    made: Counter[str] = Counter()
    samples: list[dict[str, Any]] = []
    for one in image.triplets or []:
        if one.task not in TASKS:
            raise UnusableImage("unknown_task", item.key, f"task {one.task!r} is none of {', '.join(TASKS)}")
        if one.mask.shape != image.pixels.shape[:2]:
            (h, w), (mh, mw) = image.pixels.shape[:2], one.mask.shape
            raise UnusableImage("mask_size", item.key, f"a mask is {mw}x{mh} pixels, its image {w}x{h}")
        known = taxonomy().get(one.category_id)
        samples.append(
            {
                "sample_id": f"{source.name}/{item.key}/{one.task}/{made[one.task]}",
                "task": one.task,
                "subtask": one.subtask,
                "category_id": one.category_id,
                "category": one.category or (known.name if known else ""),
                "instruction": one.instruction,
                "answer": one.answer,
                "box": list(one.box) if one.box is not None else None,
                "points": [list(p) for p in one.points] if one.points is not None else None,
                "mask": encode_mask(one.mask),
                "quality": None,
            }
        )
        made[one.task] += 1
    for task, number in made.items():
        counts.add(task, number, number)
    for lost in image.refused:
        counts.add(lost.task, 1, 0, {lost.reason: 1})
        counts.name(lost.task, lost.reason, [lost.name])
    counts.add("read", 0, 0, noted=image.noted)
    extension, encoded = image.extension, image.encoded
    if encoded is None:
        extension, encoded = "png", encode_png(image.pixels)
    # No number of categories: the diversity rule is about construction, these were chosen by their authors.
    return Tile(
        item.key,
        item.scene,
        item.group,
        extension,
        encoded,
        image.height,
        image.width,
        0,
        samples,
        item.split,
    )
