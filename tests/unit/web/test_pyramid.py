"""Pictures by levels and windows, against means of numpy."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rasterio.transform import Affine

from pipelines.maps.grid import Rect
from pipelines.web import pyramid as module
from pipelines.web.pyramid import TILE, Pyramid
from tests.geotiffs import AT, scene, write

ROOT = Path(__file__).parents[3]


def halves(pixels, level):
    """Means of squares, what is missing at the edges repeated."""
    side = 1 << level
    height, width = -(-pixels.shape[0] // side) * side, -(-pixels.shape[1] // side) * side
    padded = np.pad(
        pixels, ((0, height - pixels.shape[0]), (0, width - pixels.shape[1]), (0, 0)), mode="edge"
    )
    return padded.reshape(height // side, side, width // side, side, 3).mean((1, 3))


@pytest.fixture
def large(monkeypatch):
    """Everything counts as large."""
    monkeypatch.setattr(module, "WHOLE", 1000)
    monkeypatch.setattr(module, "_COARSE", 140)
    monkeypatch.setattr(module, "_STRIP", 20_000)


def test_a_held_picture():
    pixels = np.moveaxis(scene(300, 530), 0, -1)
    found = Pyramid.of_pixels(pixels, "x")
    assert (found.depth, found.size(1), found.size(2)) == (3, (150, 265), (75, 133))
    assert (found.tile(0, 0, 0) == pixels[:TILE, :TILE]).all()
    assert (found.tile(0, 1, 2) == pixels[TILE:, 2 * TILE :]).all()
    assert np.abs(found.tile(1, 0, 0) - halves(pixels, 1)[:150, :TILE]).max() <= 0.51
    assert found.tile(0, 2, 0) is None and found.tile(3, 0, 0) is None and found.tile(0, -1, 0) is None


@pytest.mark.parametrize("south_up", [False, True])
def test_a_raster_by_parts(tmp_path, large, south_up):
    bands = scene(410, 530, seed=2)
    at = AT @ Affine(1, 0, 0, 0, -1, 410) if south_up else AT
    stored = bands[:, ::-1] if south_up else bands
    path = write(tmp_path / "a.tif", stored, transform=at, tiled=True, blockxsize=64, blockysize=64)
    pixels = np.moveaxis(bands, 0, -1)
    found = Pyramid.open(Path(path), "a.tif")
    assert found.place is not None and found.place.transform == AT
    for level in range(found.depth):
        height, width = found.size(level)
        whole = found.read(level, Rect(0, 0, height, width))
        assert np.abs(whole - halves(pixels, level)).max() <= 0.51
        part = Rect(height // 3, width // 4, height, width - 1)
        assert (found.read(level, part) == whole[part.rows, part.columns]).all()
    assert found.depth == 3 and list(found._arrays) == [2]  # the coarsest alone is held


def test_overviews_are_used(tmp_path, large):
    import rasterio

    path = write(tmp_path / "a.tif", scene(400, 400), tiled=True, blockxsize=64, blockysize=64)
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4, 8], rasterio.enums.Resampling.nearest)
        seen = np.moveaxis(file.read(out_shape=(3, 200, 200)), 0, -1)
    found = Pyramid.open(Path(path), "a.tif")
    assert (found.read(1, Rect(0, 0, 200, 200)) == seen).all()


def test_windows_are_no_larger_than_the_model_is_given(large):
    found = Pyramid.of_pixels(np.zeros((300, 530, 3), np.uint8), "x")
    assert found.fitting(Rect(10, 20, 30, 40)) == (0, Rect(10, 20, 30, 40))
    level, part = found.fitting(Rect(3, 5, 299, 529))
    assert level == 4 and part == Rect(0, 0, 19, 34)
    assert part.height * part.width <= 1000 < (296 >> 3) * (524 >> 3)


@pytest.mark.slow
@pytest.mark.integration
def test_a_raster_of_20000_squared_in_bounded_memory(tmp_path):
    code = f"""
import resource, numpy as np, rasterio
from pathlib import Path
from rasterio.windows import Window
from pipelines.web.pyramid import Pyramid
path = Path({str(tmp_path)!r}) / "big.tif"
how = dict(driver="GTiff", height=20000, width=20000, count=3, dtype="uint8", tiled=True, blockxsize=512,
           blockysize=512, compress="deflate", zlevel=1)
block = np.random.default_rng(0).integers(0, 255, (3, 512, 512), dtype=np.uint8)
with rasterio.open(path, "w", **how) as file:
    for n in range(0, 40):
        file.write(block, window=Window(512 * (n % 39), 512 * (n * 7 % 39), 512, 512))
with rasterio.open(path) as file, rasterio.Env(GDAL_CACHEMAX=96):
    file.read(1, window=Window(0, 0, 512, 512))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = Pyramid.open(path, "big.tif")
for level in reversed(range(found.depth)):
    rows = -(-found.size(level)[0] // 256)
    for n in range(min(rows, 12)):
        assert found.tile(level, n * 5 % rows, n * 3 % rows) is not None
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 400  # MiB, of 1,145 for all pixels
