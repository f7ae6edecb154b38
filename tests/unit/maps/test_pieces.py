"""Outlines of blocks joined across them are those of the whole."""

import numpy as np
import pytest
import shapely
from rasterio.features import rasterize
from scipy import ndimage

from pipelines.maps.grid import Grid
from pipelines.maps.objects import join_pieces
from pipelines.maps.pieces import canonical, find_pieces
from pipelines.maps.work import Part, Work


def masks():
    rng = np.random.default_rng(0)
    noise = (rng.random((150, 130)) < 0.55).astype(np.uint8)
    smooth = (ndimage.gaussian_filter(rng.random((150, 130)), 3) > 0.5).astype(np.uint8)
    rings = ((np.hypot(*np.mgrid[-75:75, -65:65]) // 7) % 2).astype(np.uint8)
    unknown = smooth.copy()
    unknown[40:60, 30:70], unknown[100:, 100:] = 254, 255
    return {"noise": noise, "smooth": smooth, "rings": rings, "full": np.ones_like(noise), "unknown": unknown}


def objects_of(folder, mask, score, size, strides, lost=()):
    """Objects by way of blocks."""
    folder.mkdir()
    work, grid = Work(folder), Grid(*mask.shape, size, strides)
    for number, at in enumerate(grid.block_numbers()):
        if number in lost:
            work.fail(number, "lost")
            continue
        block = grid.block(*at)
        own = mask[block.rows, block.columns], score[block.rows, block.columns]
        pieces, borders = find_pieces(*own, block, grid.whole)
        work.save(Part(number, block, *own, pieces, borders, 1, 0))
    join_pieces(work, grid)
    found = [one for some in work.objects() for one in some]
    work.remove()
    return found


def shapes_of(found):
    return canonical(shapely.from_wkb(np.asarray([one.outline for one in found], object)))


def facts(found):
    return [(o.row, o.column, o.area, o.score_sum, o.score_max, o.cut) for o in found]


@pytest.mark.parametrize("name", masks())
def test_blocks_of_any_size_give_the_same_objects(tmp_path, name):
    mask = masks()[name]
    score = np.random.default_rng(1).integers(0, 251, mask.shape).astype(np.uint8)
    whole = objects_of(tmp_path / "whole", mask, score, 200, 1)
    outlines = shapes_of(whole)
    for size, strides in ((16, 1), (16, 3), (20, 2)):
        parts = objects_of(tmp_path / f"{size}-{strides}", mask, score, size, strides)
        assert facts(parts) == facts(whole)
        assert [s.wkb for s in shapes_of(parts)] == [s.wkb for s in outlines]
    labels, count = ndimage.label(mask == 1)
    assert count == len(whole)
    assert shapely.is_valid(outlines).all()
    assert (rasterize(outlines, mask.shape) == (mask == 1)).all()
    for one in whole:
        region = labels == labels[one.row, one.column]
        assert (one.area, one.score_sum, one.score_max) == (
            region.sum(),
            score[region].sum(dtype=int),
            score[region].max(),
        )
        assert np.flatnonzero(region)[0] == one.row * mask.shape[1] + one.column
        around = np.pad(ndimage.binary_dilation(np.pad(region, 1)), 0)
        outside = np.pad(mask >= 254, 1, constant_values=True)
        assert one.cut == bool((around & outside).any())


def test_objects_end_at_a_lost_block(tmp_path):
    mask = np.ones((100, 100), np.uint8)
    mask[:, 0] = mask[:, -1] = mask[0] = mask[-1] = 0
    found = objects_of(tmp_path / "a", mask, mask, 16, 4, lost=(0,))  # blocks of 48
    assert len(found) == 1 and found[0].cut
    assert not objects_of(tmp_path / "b", mask, mask, 16, 4)[0].cut


def test_pieces_that_meet_at_a_corner_are_two(tmp_path):
    mask = np.zeros((96, 96), np.uint8)
    mask[40:48, 40:48] = mask[48:56, 48:56] = 1  # a block's corner lies at 48
    assert len(objects_of(tmp_path / "a", mask, mask, 16, 4)) == 2
    mask[48, 47] = 1
    assert len(objects_of(tmp_path / "b", mask, mask, 16, 4)) == 1
