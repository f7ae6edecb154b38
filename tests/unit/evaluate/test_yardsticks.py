"""Swap and oracles on masks small enough to count by hand."""

import numpy as np
import pytest

from pipelines.evaluate.yardsticks import (
    all_foreground,
    category_masks,
    filled_box,
    pair_iou,
    swap_partners,
    swapped_ious,
)

EPS = 1e-5


def _mask(*cells, size=4):
    mask = np.zeros((size, size), dtype=bool)
    for row, column in cells:
        mask[row, column] = True
    return mask


A, B, C = _mask((0, 0), (0, 1)), _mask((3, 2), (3, 3)), _mask((1, 1))


def test_partners_share_task_and_category_but_not_the_mask():
    tasks = ["referring", "referring", "referring", "reasoning", "referring", "referring"]
    categories = [1, 1, 2, 1, 1, 0]
    truths = np.stack([A, B, C, B, A, C])
    # 0 and 4 show the same mask: 1 is the partner of both; 2, 3 and 5 differ in category or task
    assert swap_partners(tasks, categories, truths) == [[1], [0, 4], [], [], [1], []]


def test_no_category_has_no_partner():
    assert swap_partners(["referring"] * 2, [0, 0], np.stack([A, B])) == [[], []]


def test_reader_of_instructions_drops_and_category_finder_does_not():
    truths = np.stack([A, B])
    partners = [[1], [0]]
    assert swapped_ious(truths, truths, partners) == [0.0, 0.0]  # a perfect reader
    both = np.stack([A | B, A | B])  # finds the category, whatever the instruction
    own = [pair_iou(p, t) for p, t in zip(both, truths, strict=True)]
    assert swapped_ious(both, truths, partners) == own == [2 / (4 + EPS)] * 2


def test_several_partners_are_averaged():
    truths = np.stack([A, B, C])
    predictions = np.stack([A, A, C])
    found = swapped_ious(predictions, truths, [[1, 2], [], [0]])
    assert found[0] == pytest.approx((2 / (2 + EPS) + 0) / 2)
    assert found[1] is None
    assert found[2] == 0.0


def test_filled_box_and_category():
    corner = _mask((0, 0), (1, 1), (2, 0))
    assert filled_box(corner).sum() == 6 and filled_box(corner)[:3, :2].all()
    assert not filled_box(_mask()).any()
    found = category_masks([7, 7, 2], np.stack([A, B, C]))
    assert np.array_equal(found[7], A | B) and np.array_equal(found[2], C)


def test_all_foreground_leaves_the_padding_out():
    mask = all_foreground(height=10, width=20, size=8)
    assert mask.sum() == 4 * 8 and mask[2:6].all()
    assert all_foreground(5, 5, 8).all()
