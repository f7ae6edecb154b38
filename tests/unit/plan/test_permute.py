"""Computed permutations are permutations, differ by key, and never change."""

import numpy as np
import pytest

from pipelines.plan.permute import derive_key, permute, task_stream

PINNED_KEY = 13071334884732450293
PINNED_SMALL = [0, 5, 1, 3, 4, 2]
PINNED_LARGE = [23998184, 643652351, 367640958, 745031982, 746425502, 809992048]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1000, 1024, 1025, 1500, 2049, 50_000])
def test_permutation(size):
    for key in (0, 1, 2**63 + 5):
        assert (np.sort(permute(np.arange(size), size, key)) == np.arange(size)).all()


@pytest.mark.parametrize("size", [1000, 5000])
def test_random_access_and_spread(size):
    whole = permute(np.arange(size), size, 7)
    places = np.array([0, 17, size - 1, 17])
    assert (permute(places, size, 7) == whole[places]).all()
    # A random permutation moves about 63 % of the range into each half-open decile equally, and has about
    # one fixed point; these bounds are ten standard deviations wide.
    assert (whole == np.arange(size)).sum() < 12
    first = np.histogram(whole[: size // 10], bins=10, range=(0, size))[0]
    assert np.abs(first - size / 100).max() < 10 * np.sqrt(size / 100)
    assert abs(np.corrcoef(whole[:-1], whole[1:])[0, 1]) < 10 / np.sqrt(size)


def test_stream_is_endless_and_fresh():
    size = 300
    stream = task_stream(np.arange(5 * size), size, 3, "referring").reshape(5, size)
    assert (np.sort(stream, axis=1) == np.arange(size)).all()
    assert len({tuple(row) for row in stream}) == 5
    assert (task_stream(np.arange(450, 800), size, 3, "referring") == stream.ravel()[450:800]).all()
    assert (task_stream(np.arange(size), size, 4, "referring") != stream[0]).any()
    assert (task_stream(np.arange(size), size, 3, "reasoning") != stream[0]).any()


def test_values_are_pinned():
    """Another value here means that every existing checkpoint's plan has changed: raise plan.VERSION."""
    assert derive_key(0, "interactive", 0) == PINNED_KEY
    assert permute(np.arange(6), 6, 1).tolist() == PINNED_SMALL
    assert permute(np.arange(6), 10**9, 1).tolist() == PINNED_LARGE
