"""Counts at other thresholds against direct comparison, and the best of them."""

import numpy as np
import pyarrow as pa
import pytest

from pipelines.evaluate.thresholds import best_thresholds, counts_at, in_words, levels_of, logit, thresholds


@pytest.mark.parametrize("used", [0.5, 0.37])
def test_counts_are_those_of_the_thresholded_probabilities(used):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(24, 31)).astype(np.float32)
    logits[0, :3] = 0.0  # exactly at a half: not above it
    truth = rng.random((24, 31)) > 0.6
    levels = levels_of(logits, used)
    counts = counts_at(levels, truth, used)
    probability = 1 / (1 + np.exp(-logits.astype(np.float64)))
    grid = thresholds(used)
    assert used in grid
    for k, threshold in enumerate(grid):
        mask = probability > threshold
        assert np.array_equal(levels > k, mask)
        assert counts["inter_at"][k] == (mask & truth).sum()
        assert counts["union_at"][k] == (mask | truth).sum()


def test_a_half_is_logit_zero():
    assert logit(0.5) == 0.0


def _table(rows):
    return pa.table(
        {
            "task": [task for task, _, _ in rows],
            "inter_at": [inter for _, inter, _ in rows],
            "union_at": [union for _, _, union in rows],
        }
    )


def test_the_best_is_the_highest_mean_over_the_tasks():
    grid = thresholds(0.5)
    low = [80] + [10] * (len(grid) - 1)
    rows = [("interactive", low, [100] * len(grid)), ("referring", [20] * len(grid), [100] * len(grid))]
    found = best_thresholds(_table(rows), 0.5)
    assert found["used"] == 0.5
    assert found["best"] == grid[0]
    assert found["gIoU"]["interactive"] == pytest.approx(0.8, abs=1e-6)
    assert found["tasks"]["referring"]["best"] == 0.5  # all alike: what is used
    assert "would be 0.05" in in_words(found)
    assert "best threshold of those tried" in in_words(best_thresholds(_table(rows[1:]), 0.5))


def test_nothing_is_said_of_boxes():
    table = pa.table({"task": ["interactive"], "inter_at": pa.nulls(1, pa.list_(pa.int64())),
                      "union_at": pa.nulls(1, pa.list_(pa.int64()))})  # fmt: skip
    assert best_thresholds(table, 0.5) == {}
    assert in_words({}) == ""
