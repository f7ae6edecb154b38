"""Windows, blocks and weights, against plain counting."""

import numpy as np
import pytest

from pipelines.maps.blend import CLIP, NO_DATA, NOT_COMPUTED, SCALE, Sums, quantised, score_levels
from pipelines.maps.grid import Grid, Rect, block_strides, reflected


@pytest.mark.parametrize("size", [64, 100, 101, 8])
@pytest.mark.parametrize("length", [1, 63, 64, 65, 112, 113, 300, 1000])
def test_windows_cover_the_raster_and_weights_are_even(size, length):
    grid = Grid(length, 7, size)
    count = grid.shape[0]
    total = np.zeros(max(length, count * size + size), np.int64)
    for number in range(count):
        start = grid.window(number, 0).top
        assert start < length
        total[start : start + size] += grid.ramp(number, count)
    assert (total[:length] == 2 * grid.overlap).all()
    assert count == 1 or grid.window(count - 2, 0).bottom < length  # no window too many


@pytest.mark.parametrize("strides", [1, 2, 12])
def test_blocks_part_the_raster_and_own_each_window_once(strides):
    grid = Grid(500, 333, 64, strides)
    seen = np.zeros((500, 333), int)
    owned = np.zeros(grid.shape, int)
    for number in grid.block_numbers():
        block = grid.block(*number)
        seen[block.rows, block.columns] += 1
        rows, columns = grid.windows_of(block)
        for window in np.ndindex(grid.shape):
            meets = grid.window(*window).cut(block)
            reaches = meets.height > 0 and meets.width > 0
            assert reaches == (window[0] in rows and window[1] in columns)
            if reaches:
                owned[window] += grid.owns(number, window)
    assert (seen == 1).all() and (owned == 1).all()


@pytest.mark.parametrize("size", [64, 128, 256, 512, 1024])
def test_windows_that_two_blocks_compute_are_few_and_blocks_no_larger_than_they_need_be(size):
    strides = block_strides(size)
    side = strides * (size - size // 4)
    grid = Grid(4 * side, 4 * side, size, strides)
    rows, columns = grid.windows_of(grid.block(1, 1))
    assert len(rows) * len(columns) <= (1.09 if size <= 256 else 1.18) * strides**2
    assert side <= 12 * (max(size, 512) - max(size, 512) // 4)


@pytest.mark.parametrize("length", [1, 2, 5, 40])
def test_mirrored_places_are_numpys(length):
    row = np.arange(length)
    expected = np.pad(row, (0, 100), "reflect") if length > 1 else np.zeros(101, int)
    assert (row[reflected(0, length + 100, length)] == expected).all()


@pytest.mark.parametrize(("size", "kind"), [(64, np.int32), (1024, np.int64)])
def test_sums_of_certain_windows_do_not_overflow(size, kind):
    grid = Grid(size + 100, size + 100, size)
    sums = Sums(grid, grid.whole)
    assert sums._sums.dtype == kind
    for window in np.ndindex(grid.shape):
        sums.add(*window, np.full((size, size), -1e9, np.float32))
    mask, score = sums.finish(np.ones((size + 100,) * 2, bool), 0.5)
    assert not mask.any() and not score.any()


def test_quantising_and_score_levels():
    logits = np.asarray([-99, -16, 0, 0.0004, 0.0005, 1, 16, np.inf], np.float32)
    assert quantised(logits).tolist() == [-16384, -16384, 0, 0, 1, 1024, 16384, 16384]
    levels = score_levels()
    assert len(levels) == 2 * CLIP * SCALE + 1 and (np.diff(levels.astype(int)) >= 0).all()
    assert (levels[0], levels[CLIP * SCALE], levels[-1]) == (0, 125, 250)
    assert levels[CLIP * SCALE + 1024] == round(250 / (1 + np.exp(-1)))


def test_what_no_window_reached_and_what_holds_no_data():
    grid = Grid(100, 100, 64)
    sums = Sums(grid, Rect(0, 0, 100, 100))
    sums.add(0, 0, np.ones((64, 64), np.float32))
    valid = np.ones((100, 100), bool)
    valid[:10] = False
    mask, score = sums.finish(valid, 0.5)
    for values, inside in ((mask, 1), (score, round(250 / (1 + np.exp(-1))))):
        assert (values[:10] == NO_DATA).all()
        assert (values[10:64, :64] == inside).all()
        assert (values[64:] == NOT_COMPUTED).all() and (values[10:, 64:] == NOT_COMPUTED).all()


def test_a_threshold_moves_the_cut():
    grid = Grid(100, 100, 64)
    for threshold, found in ((0.7, 1), (0.74, 0)):  # sigmoid(1) = 0.731
        sums = Sums(grid, grid.whole)
        for window in np.ndindex(grid.shape):
            sums.add(*window, np.ones((64, 64), np.float32))
        assert (sums.finish(np.ones((100, 100), bool), threshold)[0] == found).all()
