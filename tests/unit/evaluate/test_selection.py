"""Subsets are seeded, whole-image and within their size; portions never cut an image."""

import numpy as np
import pytest

from pipelines.evaluate.selection import choose_rows, portions
from pipelines.store.index import StoreIndex


@pytest.fixture(scope="module")
def index(store):
    return StoreIndex.open(store, "val")


def test_all_rows(index):
    assert choose_rows(index, None).tolist() == list(range(len(index)))
    assert choose_rows(index, 10_000).tolist() == list(range(len(index)))


@pytest.mark.parametrize("most", [3, 7, 20])
def test_subset_is_seeded_whole_images_and_bounded(index, most):
    rows = choose_rows(index, most, seed=1)
    assert rows.tolist() == choose_rows(index, most, seed=1).tolist() == sorted(set(rows.tolist()))
    chosen = set(rows.tolist())
    for task in range(3):
        of_task = np.flatnonzero(index.tasks == task)
        assert 0 < len(chosen & set(of_task.tolist())) <= most
        for image in set(index.images[of_task]):
            group = set(of_task[index.images[of_task] == image].tolist())
            assert group <= chosen or not group & chosen


def test_seeds_differ(index):
    assert choose_rows(index, 7, seed=1).tolist() != choose_rows(index, 7, seed=2).tolist()


def test_an_image_with_too_many_samples_is_cut(index):
    rows = choose_rows(index, 1)
    assert np.bincount(index.tasks[rows], minlength=3).tolist() == [1, 1, 1]


@pytest.mark.parametrize("images", [1, 4, 100])
def test_portions_are_whole_images_in_order(index, images):
    rows = choose_rows(index, 9)
    parts = list(portions(rows, index.images, images))
    assert np.concatenate(parts).tolist() == rows.tolist()
    owners = [set(index.images[p].tolist()) for p in parts]
    assert all(len(o) == images for o in owners[:-1]) and len(owners[-1]) <= images
    assert sum(map(len, owners)) == len(set.union(*owners))


def test_no_rows_no_portions(index):
    assert list(portions(np.zeros(0, np.int64), index.images, 4)) == []
