"""Which samples are evaluated, and in which fixed portions (so that results never depend on the workers)."""

import hashlib
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.evaluate.data import Index
from unigeoseg.tasks import TASKS

Rows = NDArray[np.int64]


def choose_rows(index: Index, max_samples: int | None, seed: int = 0) -> Rows:
    """Row numbers to evaluate, ascending: all, or at most ``max_samples`` of each task.

    A subset takes whole images in an order drawn from ``seed`` (all of an image's samples of a task or none:
    the same-category swap needs them together), the same images for every task as far as they go.
    """
    if max_samples is None:
        return np.arange(len(index), dtype=np.int64)
    image, task = index.images, index.tasks.astype(np.int64)
    starts = np.flatnonzero(np.diff(image, prepend=-1))
    order = _shuffled(index.table["key"].take(pa.array(starts)).to_pylist(), seed)
    per_image = np.zeros((len(starts), len(TASKS)), dtype=np.int64)
    np.add.at(per_image, (image, task), 1)
    chosen = np.zeros(per_image.shape, dtype=bool)
    for t in range(len(TASKS)):
        room = max_samples
        for i in order:
            if 0 < per_image[i, t] <= room:
                chosen[i, t] = True
                room -= int(per_image[i, t])
    rows = [np.flatnonzero(chosen[image, task])]
    for t in range(len(TASKS)):
        if not chosen[:, t].any():  # every image holds more samples than fit: take one image's first ones
            rows.append(np.flatnonzero(task == t)[:max_samples])
    return np.sort(np.concatenate(rows))


def _shuffled(keys: list[str], seed: int) -> list[int]:
    digests = [hashlib.sha256(f"{seed}:{key}".encode()).digest() for key in keys]
    return sorted(range(len(keys)), key=digests.__getitem__)


def portions(rows: Rows, image: Rows, images: int) -> Iterator[Rows]:
    """Cuts ``rows`` (ascending) into parts of ``images`` whole images: a worker's unit of work.

    Args:
        rows: row numbers of the index.
        image: the image of every row of the index, ascending.
        images: how many images in a part.
    """
    _, ordinal = np.unique(image[rows], return_inverse=True)
    last = int(ordinal[-1]) if len(rows) else -1
    for first in range(0, last + 1, images):
        yield rows[np.searchsorted(ordinal, first) : np.searchsorted(ordinal, first + images)]
