"""Objects of a map and of the truth, one to one."""

from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.storage.libraries import library

#: From here on two objects are the same one (Kirillov et al. 2019): among objects that do not overlap each
#: other, no second one can have as much.
SAME = 0.5


@dataclass(frozen=True)
class Matching:
    """Which objects are the same.

    Attributes:
        truth: int64 ``[N]``: of each true object the place of its own in the map; -1: it was missed.
        found: int64 ``[M]``: of each object of the map the place of its true one; -1: it is false.
        ious: float64 ``[N]``: IoU of each true object with its own; 0: it was missed.
        closest_truth: float64 ``[N]``: IoU with the closest object of the map.
        closest_found: float64 ``[M]``: IoU with the closest true object.
    """

    truth: NDArray[np.int64]
    found: NDArray[np.int64]
    ious: NDArray[np.float64]
    closest_truth: NDArray[np.float64]
    closest_found: NDArray[np.float64]

    def counts(self, left_out: int) -> "ObjectCounts":
        """How many there are of each.

        Args:
            left_out: true objects that were not among those to be matched.
        """
        matched = int((self.truth >= 0).sum())
        missed, false = len(self.truth) - matched, len(self.found) - matched
        return ObjectCounts(matched, missed, false, left_out, float(self.ious.sum()))


@dataclass(frozen=True)
class ObjectCounts:
    """Objects of one map or several: ``iou`` is the sum of the matched ones' IoU."""

    matched: int
    missed: int
    false: int
    left_out: int
    iou: float

    def __add__(self, other: "ObjectCounts") -> "ObjectCounts":
        pairs = zip(astuple(self), astuple(other), strict=True)
        return ObjectCounts(*(one + more for one, more in pairs))

    def told(self) -> dict[str, float | int | None]:
        """Counts, and measures over objects; ``mean_IoU`` is that of the matched ones."""
        truth, found = self.matched + self.missed, self.matched + self.false
        return {
            "truth": truth,
            "map": found,
            "matched": self.matched,
            "missed": self.missed,
            "false": self.false,
            "left_out": self.left_out,
            "precision": self.matched / found if found else None,
            "recall": self.matched / truth if truth else None,
            "F1": 2 * self.matched / (truth + found) if truth + found else None,
            "mean_IoU": self.iou / self.matched if self.matched else None,
        }


def match(truth: NDArray[np.object_], found: NDArray[np.object_]) -> Matching:
    """The pairs whose IoU is at least :data:`SAME`, the closest first.

    Args:
        truth: polygons, valid, in plane coordinates.
        found: those of the map.
    """
    shapely = library("shapely")
    count, other = len(truth), len(found)
    out = Matching(np.full(count, -1), np.full(other, -1), *(np.zeros(n) for n in (count, count, other)))
    if not len(truth) or not len(found):
        return out
    left, right = shapely.STRtree(found).query(truth, predicate="intersects")
    common = shapely.area(shapely.intersection(truth[left], found[right]))
    ious = common / (shapely.area(truth)[left] + shapely.area(found)[right] - common)
    np.maximum.at(out.closest_truth, left, ious)
    np.maximum.at(out.closest_found, right, ious)
    for at in np.lexsort((right, left, -ious)):
        if ious[at] < SAME:
            break
        if out.truth[left[at]] < 0 and out.found[right[at]] < 0:
            out.truth[left[at]], out.found[right[at]] = right[at], left[at]
            out.ious[left[at]] = ious[at]
    return out
