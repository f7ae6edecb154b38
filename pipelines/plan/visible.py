"""Which regions are still there at the model's size: counted, and left out of the plan on request."""

import hashlib
import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.config import Config
from pipelines.plan.units import PlanIndex
from unigeoseg.errors import UserError

log = logging.getLogger(__name__)
_COLUMNS = ("mask_area", "height", "width")


@dataclass(frozen=True)
class Kept:
    """An index of which some rows are left out; row numbers stay those of the whole.

    Attributes:
        index: whole.
        tasks: int8 ``[N]``, -1 where a row is left out.
    """

    index: PlanIndex
    tasks: NDArray[np.int8]

    @property
    def table(self) -> Any:
        """Rows of the whole index; ``None`` where it has no table."""
        return getattr(self.index, "table", None)

    @property
    def store(self) -> str:
        """Name, for messages."""
        return self.index.store

    @property
    def split(self) -> str:
        """Name of the split, for messages."""
        return self.index.split

    @property
    def images(self) -> NDArray[np.int64]:
        """Number of the image of each row, ascending."""
        return self.index.images

    @property
    def fingerprint(self) -> str:
        """Of the whole index and of what is left of it."""
        content = self.index.fingerprint.encode() + (self.tasks >= 0).tobytes()
        return hashlib.sha256(content).hexdigest()

    def counts(self) -> tuple[int, int, int]:
        """Samples of each task that are left."""
        a, b, c = (int((self.tasks == task).sum()) for task in range(3))
        return a, b, c


def pixels_at(table: Any, size: int) -> NDArray[np.float64]:
    """Pixels of each row's region when its image is letterboxed to a side of ``size``; float64 ``[N]``.

    Args:
        table: of an index, with ``mask_area`` (pixels of the image), ``height``, ``width``.
        size: side of the square.
    """
    area, height, width = (table[name].to_numpy().astype(np.float64) for name in _COLUMNS)
    return np.asarray(area * (size / np.maximum(height, width)) ** 2)


def visible(index: PlanIndex, config: Config) -> PlanIndex:
    """The index without the samples that ``data.min_pixels`` leaves out; the index itself where it is 0.

    A sample without a region (a question with no answer in the picture) is kept.

    Raises:
        UserError: the index does not tell the regions' sizes, or nothing is left.
    """
    least = config.data.min_pixels
    if not least:
        return index
    table = getattr(index, "table", None)
    if table is None or not set(_COLUMNS) <= set(table.column_names):
        raise UserError(
            f"data.min_pixels={least:g} needs the regions' sizes, and the index of {index.store} lacks "
            "mask_area; set data.min_pixels=0, or build the store anew"
        )
    area = pixels_at(table, config.model.image_size)
    small = (area > 0) & (area < least)
    if small.all():
        raise UserError(
            f"data.min_pixels={least:g}: none of {len(small)} regions of {index.store} has so many pixels "
            f"at {config.model.image_size}; lower it"
        )
    log.info(
        "data.min_pixels=%g: %d of %d samples are left out, their regions have fewer pixels at %d",
        least,
        int(small.sum()),
        len(small),
        config.model.image_size,
    )
    return Kept(index, np.where(small, np.int8(-1), index.tasks))


def tell_vanishing(index: Any, config: Config) -> int:
    """Says how many training regions cover less than a pixel at the model's size; returns the number."""
    if config.data.min_pixels or not set(_COLUMNS) <= set(index.table.column_names):
        return 0  # with a limit, visible() says what is left out
    area = pixels_at(index.table, config.model.image_size)
    count = int(((area > 0) & (area < 1)).sum())
    if count:
        log.warning(
            "%d of %d training regions cover less than one pixel at the model's size of %d: such targets are "
            "little more than noise; data.min_pixels=1 leaves them out, smaller tiles or a larger "
            "model.image_size show them",
            count,
            len(area),
            config.model.image_size,
        )
    return count
