"""Measures of a map from counts, and objects one to one, by brute force."""

import numpy as np
import shapely

from pipelines.maps.assessment.accuracy import Counts, agreement, thresholds
from pipelines.maps.assessment.matching import ObjectCounts, match


def test_matching_is_that_of_all_pairs():
    rng = np.random.default_rng(3)
    corners = rng.uniform(0, 60, (2, 80, 2))
    sizes = rng.uniform(3, 12, (2, 80, 2))
    sides = [
        [shapely.box(*c, *(c + s)) for c, s in zip(*one, strict=True)]
        for one in zip(corners, sizes, strict=True)
    ]
    left, right = (np.asarray(some, object) for some in sides)
    ious = np.array([[a.intersection(b).area / a.union(b).area for b in right] for a in left])
    pairs, taken = {}, set()
    for at in np.argsort(-ious, axis=None):
        a, b = divmod(int(at), 80)
        if ious[a, b] >= 0.5 and a not in pairs and b not in taken:
            pairs[a] = b
            taken.add(b)
    found = match(left, right)
    assert {a: b for a, b in enumerate(found.truth.tolist()) if b >= 0} == pairs and len(pairs) > 5
    assert {b: a for b, a in enumerate(found.found.tolist()) if a >= 0} == {b: a for a, b in pairs.items()}
    np.testing.assert_allclose(found.closest_truth, ious.max(1), atol=1e-12)
    np.testing.assert_allclose(found.closest_found, ious.max(0), atol=1e-12)


def test_the_spread_is_that_of_squares_drawn_again():
    rng = np.random.default_rng(5)
    squares = rng.integers(0, 200, (40, 4))
    told = agreement(Counts(np.concatenate([squares, np.zeros((9, 4), np.int64)]), np.zeros((2, 251))))
    drawn = np.random.default_rng(9)
    values = []
    for _ in range(4000):
        both, false, missed, _ = squares[drawn.integers(0, 40, 40)].sum(0)
        values.append(both / (both + false + missed))
    np.testing.assert_allclose(told["spread"]["IoU"], np.percentile(values, (2.5, 97.5)), atol=0.01)
    assert told["squares"] == 40
    alike = agreement(Counts(np.tile([[5, 1, 2, 9]], (10, 1)), np.zeros((2, 251))))
    assert alike["spread"]["IoU"] == [5 / 8, 5 / 8]
    none = agreement(Counts(np.array([[0, 0, 0, 7]]), np.zeros((2, 251))))
    assert none["IoU"] is none["recall"] is none["spread"] is None and none["accuracy"] == 1
    assert thresholds(Counts(squares, np.eye(2, 251, dtype=np.int64) * [[1], [0]])) is None


def test_objects_of_several_maps_add_up():
    told = (ObjectCounts(3, 1, 2, 0, 2.4) + ObjectCounts(1, 1, 0, 5, 0.6)).told()
    assert (told["truth"], told["map"], told["matched"], told["left_out"]) == (6, 6, 4, 5)
    assert told["precision"] == told["recall"] == told["F1"] == 4 / 6 and told["mean_IoU"] == 3.0 / 4
    nothing = ObjectCounts(0, 0, 0, 0, 0.0).told()
    assert nothing["F1"] is nothing["recall"] is nothing["precision"] is nothing["mean_IoU"] is None
