"""Objects of a map and of the truth, one to one."""

from dataclasses import dataclass

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

    def told(self) -> dict[str, float | int | None]:
        """Counts, and measures over objects; ``mean_IoU`` is that of the matched ones."""
        matched = int((self.truth >= 0).sum())
        missed, false = len(self.truth) - matched, len(self.found) - matched
        return {
            "truth": len(self.truth),
            "map": len(self.found),
            "matched": matched,
            "missed": missed,
            "false": false,
            "precision": matched / len(self.found) if len(self.found) else None,
            "recall": matched / len(self.truth) if len(self.truth) else None,
            "F1": 2 * matched / (2 * matched + missed + false) if matched + missed + false else None,
            "mean_IoU": float(self.ious[self.truth >= 0].mean()) if matched else None,
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
