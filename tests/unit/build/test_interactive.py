import numpy as np
import pytest

from pipelines.build.instruct.interactive import draw_points, interactive_fields
from pipelines.config.building import InstructConfig
from pipelines.labels.regions import split_semantic
from unigeoseg.samples.prompts import parse_coordinates


def blob(seed, height=90, width=140):
    rng = np.random.default_rng(seed)
    labels = np.zeros((height, width), np.int32)
    y, x = rng.integers(0, height - 30), rng.integers(0, width - 30)
    shape = rng.random((30, 30)) < 0.8
    shape[0, 0] = shape[15, :] = shape[:, 15] = True
    labels[y : y + 30, x : x + 30][shape] = 25
    regions, _ = split_semantic(labels, 100)
    return labels == 25, max(regions, key=lambda r: r.area)


@pytest.mark.parametrize("seed", range(10))
def test_boxes_are_tight_and_printed(seed):
    _, region = blob(seed)
    full = region.full(90, 140)
    fields = interactive_fields(region, 90, 140, True, InstructConfig(), np.random.default_rng(seed))
    ys, xs = np.nonzero(full)
    tight = [xs.min() / 140, ys.min() / 90, (xs.max() + 1) / 140, (ys.max() + 1) / 90]
    np.testing.assert_allclose(fields["box"], tight, atol=1e-6)
    box, points = parse_coordinates(fields["instruction"])
    assert points is None and fields["points"] is None and fields["subtask"] == "box"
    np.testing.assert_allclose(box, tight, atol=0.0006)


@pytest.mark.parametrize("seed", range(10))
def test_points_lie_inside_and_are_printed(seed):
    _, region = blob(seed)
    full = region.full(90, 140)
    rng = np.random.default_rng(seed)
    for _ in range(20):
        fields = interactive_fields(region, 90, 140, False, InstructConfig(), rng)
        _, printed = parse_coordinates(fields["instruction"])
        assert len(printed) == len(fields["points"]) == len(set(map(tuple, fields["points"])))
        np.testing.assert_allclose(printed, fields["points"], atol=0.0006)
        for x, y in printed:  # what the sentence says is inside too
            assert full[int(y * 90), int(x * 140)]


def test_number_of_points():
    _, region = blob(0)
    rng = np.random.default_rng(0)
    counts = np.bincount([len(draw_points(region, 90, 140, InstructConfig(), rng)) for _ in range(4000)])
    np.testing.assert_allclose(counts[1:] / 4000, [0.6, 0.2, 0.2], atol=0.03)
    small = InstructConfig(small_region_px=region.area + 1)
    assert {len(draw_points(region, 90, 140, small, rng)) for _ in range(50)} == {1}
