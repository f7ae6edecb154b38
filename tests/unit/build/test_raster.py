import subprocess
import sys

import numpy as np
import pytest
import rasterio
from PIL import Image

from pipelines.build.sources.strips import Strips
from pipelines.labels.tiling import Window
from pipelines.pictures.errors import UnusableImage
from pipelines.pictures.masks import open_colours, open_index
from pipelines.pictures.picture import Rules, open_picture
from pipelines.pictures.rasters import ArrayRaster
from tests.unit.build.layouts import write_tiff


def read(file, bands=None, stretch="auto"):
    return open_picture(file, Rules(bands, stretch)).pixels()


def test_sixteen_bits_are_stretched_by_limits_and_by_percentiles(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 4000, (60, 70, 5)).astype(np.uint16)
    write_tiff(tmp_path / "a.tif", values)
    found = read(tmp_path / "a.tif", (4, 1, 2), (500.0, 3000.0))
    wanted = values[..., [3, 0, 1]].astype(np.float64)
    expected = np.clip(np.rint((wanted - 500) * 255 / 2500), 0, 255)
    assert found.dtype == np.uint8 and np.abs(found - expected).max() <= 1
    assert (found != expected).mean() < 0.001  # rounding of exact halves in float32
    found = read(tmp_path / "a.tif", (2,))
    low, high = np.percentile(values[..., 1], [2, 98])
    expected = np.clip(np.rint((values[..., 1].astype(np.float64) - low) * 255 / (high - low)), 0, 255)
    assert np.abs(found - expected[..., None]).max() <= 1 and (found[..., 0] == found[..., 2]).all()
    with pytest.raises(UnusableImage, match=r"a\.tif: values are uint16: set stretch"):
        read(tmp_path / "a.tif", None, "none")
    with pytest.raises(UnusableImage, match="has 5 bands, band 6 is asked for"):
        read(tmp_path / "a.tif", (6, 1, 2))


def test_no_data_and_not_a_number_do_not_stretch(tmp_path):
    values = np.full((40, 40), -9999.0, np.float32)
    values[:20] = np.linspace(10, 20, 800).reshape(20, 40)
    values[0, 0] = np.nan
    write_tiff(tmp_path / "a.tif", values, nodata=-9999.0)
    found = read(tmp_path / "a.tif")[..., 0]
    assert found[20:].max() == 0 and found[0, 0] == 0
    assert found[19, 39] == 255 and 100 < found[10, 0] < 150


def test_a_sixteen_bit_png_is_not_clipped(tmp_path):
    values = np.linspace(0, 60000, 1600).reshape(40, 40).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    found = read(tmp_path / "a.png", None, (0.0, 60000.0))[..., 0]
    assert np.abs(found - values / 60000 * 255).max() <= 1


def test_index_masks_in_all_their_forms(tmp_path):
    values = np.random.default_rng(0).integers(0, 7, (30, 20)).astype(np.uint8)
    palette = Image.fromarray(values)
    palette.putpalette([255 - i for i in range(256) for _ in range(3)])
    forms = {"grey.png": Image.fromarray(values), "palette.png": palette}
    forms["rgb.png"] = Image.fromarray(np.repeat(values[..., None], 3, 2))
    for name, image in forms.items():
        image.save(tmp_path / name)
        assert (open_index(tmp_path / name).rows(0, 30) == values).all(), name
    assert Image.open(tmp_path / "palette.png").mode == "P"
    write_tiff(tmp_path / "m.tif", values.astype(np.int16))
    assert (open_index(tmp_path / "m.tif").rows(3, 9) == values[3:9]).all()
    Image.fromarray(np.random.default_rng(0).integers(0, 9, (5, 5, 3)).astype(np.uint8)).save(
        tmp_path / "colour.png"
    )
    with pytest.raises(UnusableImage, match="one class number a pixel"):
        open_index(tmp_path / "colour.png")
    write_tiff(tmp_path / "plain.tif", values)
    with pytest.raises(UnusableImage, match="the mask should have colours"):
        open_colours(tmp_path / "plain.tif")


def test_files_that_only_pretend(tmp_path):
    (tmp_path / "a.tif").write_text('<VRTDataset rasterXSize="5" rasterYSize="5"></VRTDataset>')
    with pytest.raises(UnusableImage, match="not an image of a known kind"):
        read(tmp_path / "a.tif")
    write_tiff(tmp_path / "b.tif", np.ones((200, 200, 3), np.uint16))
    whole = (tmp_path / "b.tif").read_bytes()
    (tmp_path / "b.tif").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UnusableImage, match=r"b\.tif.*cannot be read"):
        read(tmp_path / "b.tif")


@pytest.mark.parametrize("stride", [16, 24, 40])
def test_strips_give_each_window_and_read_each_row_once(stride):
    pixels = np.random.default_rng(0).integers(0, 255, (101, 37)).astype(np.uint8)
    seen = []
    strips = Strips(ArrayRaster(pixels), lambda rows: seen.append(len(rows)) or rows)
    for y in [*range(0, 101 - 40, stride), 61]:
        for x in (0, 10):
            window = Window(y, x, 40, 27)
            assert (strips.cut(window) == pixels[window.slices]).all()
    assert sum(seen) == 101
    with pytest.raises(ValueError, match="given up"):
        strips.cut(Window(0, 0, 40, 27))


BIG = r"""
import re, sys
from pathlib import Path
import pipelines.build.build
from pipelines.build import BuildConfig, build_store

def peak():  # ru_maxrss would also count the peak of the process that started this one
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) // 1024

imported = peak()
config = BuildConfig(workers=0, instruct={"diversity_quantile": 0.0}, rules={"min_area": 0.3},
                     tile={"size": 512, "stride": 512})
build_store("chesapeake", sys.argv[1], sys.argv[2], config, progress=False, preview=False)
print(peak() - imported)
"""


PLAIN = """
licence: mine
layouts: [{image: 'i/{name}.tif', mask: 'm/{name}.tif'}]
classes: [{name: a, value: 1, category: 25 Building}, {name: b, value: 0, category: null}]
"""


def sparse_cog(root, side, places, size=512):
    """A picture without data but at some places, and its mask, as COGs."""
    import rasterio.shutil

    rng = np.random.default_rng(0)
    options = {"driver": "GTiff", "height": side, "width": side, "dtype": "uint8", "tiled": True}
    options |= {"blockxsize": size, "blockysize": size, "compress": "deflate", "sparse_ok": True}
    for name, bands, nodata in (("i", 3, 0), ("m", 1, None)):
        (root / name).mkdir(parents=True)
        with rasterio.open(root / "plain.tif", "w", count=bands, nodata=nodata, **options) as data:
            for y, x in places:
                values = np.kron(rng.integers(1, 200, (bands, 8, 8)), np.ones((1, size // 8, size // 8)))
                if name == "m":
                    values = np.zeros((1, size, size))
                    values[:, size // 8 : 7 * size // 8, size // 8 : 7 * size // 8] = 1
                window = rasterio.windows.Window(x, y, size, size)
                data.write(values.astype(np.uint8), window=window)
        more = {"compress": "deflate", "blocksize": size, "sparse_ok": True, "overviews": "NONE"}
        rasterio.shutil.copy(root / "plain.tif", root / name / "a.tif", driver="COG", **more)
        (root / "plain.tif").unlink()
    (root / "t.yaml").write_text(PLAIN)


def test_a_wide_raster_that_is_read_in_bands_gives_the_same_samples_and_counts(tmp_path, monkeypatch):
    import pipelines.labels.tiling as tiling
    import pipelines.pictures.rasters as rasters
    from pipelines.build import BuildConfig, build_store
    from tests.unit.build.test_store_tools import samples_of

    sparse_cog(tmp_path / "in", 1100, [(0, 128), (128, 0), (512, 640), (900, 896), (384, 256)], 128)
    config = BuildConfig(workers=0, tile={"size": 128, "stride": 64})
    found = {}
    whole = 50_000_000
    for name, band, small in (("whole", 8192, whole), ("rows", 8192, 1), ("bands", 300, 1), ("one", 10, 1)):
        monkeypatch.setattr(tiling, "BAND", band)
        monkeypatch.setattr(rasters, "_SMALL", small)
        source, out = str(tmp_path / "in" / "t.yaml"), tmp_path / name
        result = build_store(source, tmp_path / "in", out, config, progress=False, preview=False)
        found[name] = result["stages"], result["samples"], samples_of(out)
    assert found["whole"][1]["interactive"] > 10
    for name in ("rows", "bands", "one"):
        assert found[name] == found["whole"], name


SPARSE = BIG.replace('"chesapeake"', 'sys.argv[1] + "/t.yaml"')


@pytest.mark.slow
def test_a_fifty_thousand_pixel_cog_needs_no_more_memory_than_a_smaller_one(tmp_path):
    """7.5 GB of pixels, 10 GB of labels. Wide rasters are read in bands, so the bound holds for any size."""
    places = [(y * 512, x * 512) for y, x in np.random.default_rng(1).integers(0, 97, (20, 2)).tolist()]
    sparse_cog(tmp_path / "in", 50_000, places)
    assert sum(file.stat().st_size for file in (tmp_path / "in").rglob("*.tif")) < 5_000_000
    done = subprocess.run(
        [sys.executable, "-c", SPARSE, tmp_path / "in", tmp_path / "out"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert 0 < int(done.stdout) < 450, f"{done.stdout} MB"


@pytest.mark.slow
def test_a_twenty_thousand_pixel_scene_needs_little_memory(tmp_path):
    """1.6 GB of pixels and 0.4 GB of labels; int32 labels alone would be 1.6 GB.

    What counts is the peak of the process above what its imports need.
    """

    folder = tmp_path / "in" / "de_1m_2013_extended-debuffered-train_tiles"
    folder.mkdir(parents=True)
    side, rng = 20_000, np.random.default_rng(0)
    options = {"driver": "GTiff", "height": side, "width": side, "dtype": "uint8", "tiled": True}
    for name, bands in (("m_12345_1_naip-new", 4), ("m_12345_1_lc", 1)):
        with rasterio.open(folder / f"{name}.tif", "w", count=bands, compress="lzw", **options) as data:
            for y in range(0, side, 500):
                rows = np.kron(rng.integers(1, 7, (bands, 2, 80)), np.ones((1, 250, 250))).astype(np.uint8)
                data.write(rows, window=rasterio.windows.Window(0, y, side, 500))
    done = subprocess.run(
        [sys.executable, "-c", BIG, tmp_path / "in", tmp_path / "out"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert 0 < int(done.stdout) < 500, f"{done.stdout} MB"
