"""Metrics against an independent float64 NumPy computation, and on the edge cases."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unigeoseg.metrics import (
    BOX_THRESHOLDS,
    MetricSums,
    bootstrap_ci95,
    box_counts,
    iou,
    largest_component_box,
    mask_counts,
)


def _masks(seed: int, count: int = 40, size: int = 17) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.random((count, size, size)) < rng.random((count, 1, 1)) ** 2
    noise = rng.random((count, size, size)) < rng.random((count, 1, 1)) ** 2
    predicted = np.where(
        rng.random((count, 1, 1)) < 0.5, truth ^ (noise & (rng.random(noise.shape) < 0.2)), noise
    )
    truth[0] = predicted[0] = False  # both empty
    truth[1] = False  # only the truth is empty
    predicted[2] = False  # only the prediction is empty
    truth[3] = predicted[3] = True  # both full
    return predicted, truth


def _brute_force(predicted: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """The conventions of training.md section 6, pixel by pixel, independent of the implementation."""
    values, inter_sum, union_sum = [], 0, 0
    for p, t in zip(predicted, truth, strict=True):
        inter = union = 0
        for a, b in zip(p.ravel().tolist(), t.ravel().tolist(), strict=True):
            inter += a and b
            union += a or b
        values.append(1.0 if union == 0 else inter / (union + 1e-5))
        inter_sum, union_sum = inter_sum + inter, union_sum + union
    result = {
        "n": len(values),
        "gIoU": math.fsum(values) / len(values),
        "cIoU": inter_sum / (union_sum + 1e-10),
    }
    for t in (0.5, 0.6, 0.7, 0.8, 0.9):
        result[f"Pr@{t}"] = sum(v > t for v in values) / len(values)
    return result


def _counts(predicted: np.ndarray, truth: np.ndarray) -> tuple[list[int], list[int]]:
    inter, union = mask_counts(torch.from_numpy(predicted), torch.from_numpy(truth))
    assert inter.dtype == union.dtype == torch.int64
    return inter.tolist(), union.tolist()


@pytest.mark.parametrize("seed", range(3))
def test_equal_to_brute_force(seed):
    predicted, truth = _masks(seed)
    expected = _brute_force(predicted, truth)
    got = MetricSums().add_all(*_counts(predicted, truth)).result()
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert got[name] == pytest.approx(value, abs=1e-15), name


def test_edge_cases():
    predicted, truth = _masks(0)
    inter, union = _counts(predicted[:4], truth[:4])
    assert iou(inter[0], union[0]) == 1.0  # both empty
    assert iou(inter[1], union[1]) == 0.0 and iou(inter[2], union[2]) == 0.0
    full = 17 * 17
    assert iou(inter[3], union[3]) == full / (full + 1e-5) < 1.0
    assert iou(0, 0) == 1.0


def test_threshold_is_strict():
    # intersection = 1, union = 2 gives 0.499998: not above 0.5; an empty pair gives exactly 1.0
    sums = MetricSums(thresholds=(1 / (2 + 1e-5), 0.4)).add_all([1], [2])
    assert sums.above == [0, 1]
    assert MetricSums().add_all([5], [10]).result()["Pr@0.5"] == 0.0


def test_no_samples():
    result = MetricSums().result()
    assert result["n"] == 0 and math.isnan(result["gIoU"])
    assert bootstrap_ci95([], [], []) == {}


def test_impossible_counts_are_refused():
    with pytest.raises(ValueError, match="impossible"):
        MetricSums().add(3, 2)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 2**20)), min_size=1, max_size=60), st.data())
def test_merge_is_exact_for_any_split_and_order(pairs, data):
    counts = [(min(p), max(p)) for p in pairs]
    whole = MetricSums().add_all(*zip(*counts, strict=True))
    order = data.draw(st.permutations(counts))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(order)), max_size=4)))
    merged = MetricSums()
    for start, stop in zip([0, *cuts], [*cuts, len(order)], strict=True):
        part = MetricSums()
        for i, u in order[start:stop]:
            part.add(i, u)
        merged.merge(part)
    assert merged == whole
    assert merged.result() == whole.result()


def test_merge_refuses_other_thresholds():
    with pytest.raises(ValueError, match="thresholds"):
        MetricSums().merge(MetricSums(thresholds=BOX_THRESHOLDS))


def test_largest_component_is_eight_connected():
    mask = np.zeros((8, 9), dtype=np.uint8)
    for d in range(4):
        mask[d, d] = 1  # a diagonal: one component of four pixels
    mask[6, 6:9] = 1  # three pixels in a row
    assert largest_component_box(mask) == (0, 0, 4, 4)
    assert largest_component_box(np.zeros((4, 4))) is None


def test_box_counts():
    a, b = np.zeros((10, 10)), np.zeros((10, 10))
    a[2:6, 2:6] = 1
    a[9, 9] = 1  # a smaller component does not move the box
    b[4:8, 3:9] = 1
    assert box_counts(a, b) == (2 * 3, 16 + 24 - 6)
    assert box_counts(a, np.zeros((10, 10))) == (0, 16)
    assert box_counts(np.zeros((3, 3)), np.zeros((3, 3))) == (0, 0)
    sums = MetricSums(thresholds=BOX_THRESHOLDS).add_all(*zip(box_counts(a, b), strict=True))
    assert set(sums.result()) == {"n", "gIoU", "cIoU", "Pr@0.3", "Pr@0.5", "Pr@0.7"}


def test_bootstrap_is_seeded_and_covers_the_value():
    rng = np.random.default_rng(1)
    union = rng.integers(50, 100, 200)
    inter = (union * rng.random(200)).astype(int)
    groups = np.arange(200) // 3
    first = bootstrap_ci95(inter, union, groups, seed=4)
    assert (
        first == bootstrap_ci95(inter, union, groups, seed=4) != bootstrap_ci95(inter, union, groups, seed=5)
    )
    sums = MetricSums().add_all(inter, union)
    assert first["gIoU"][0] < sums.giou < first["gIoU"][1]
    assert first["cIoU"][0] < sums.ciou < first["cIoU"][1]
    assert 0.05 < first["gIoU"][1] - first["gIoU"][0] < 0.12  # 1.96 * 2 * 0.29 / sqrt(200) = 0.08


def test_intervals_hold_when_tiles_of_a_scene_resemble_each_other():
    """Half-overlapping tiles: resampling scenes covers the true mean about as often as it says."""
    covered = {"scenes": 0, "tiles": 0}
    rng = np.random.default_rng(0)
    for trial in range(200):
        place = rng.normal(0.5, 0.15, 30)
        values = np.clip(np.repeat(place, 12) + rng.normal(0, 0.05, 360), 0, 1)
        union = np.full(360, 100_000)
        inter = (values * union).astype(int)
        for name, groups in (("scenes", np.arange(360) // 12), ("tiles", np.arange(360))):
            low, high = bootstrap_ci95(inter, union, groups, seed=trial, resamples=200)["gIoU"]
            covered[name] += low <= 0.5 <= high
    assert covered["scenes"] / 200 > 0.88
    assert covered["tiles"] / 200 < 0.6


def test_a_scene_alone_promises_nothing():
    found = bootstrap_ci95([5, 6, 7], [10, 10, 10], [4, 4, 4])
    assert found == {"gIoU": [0.0, 1.0], "cIoU": [0.0, 1.0]}
