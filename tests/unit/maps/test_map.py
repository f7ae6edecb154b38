"""``unigeoseg map`` against a plain blend over the whole array, and against itself cut up otherwise."""

import json
import math

import geopandas
import numpy as np
import pytest
import rasterio
from rasterio.features import rasterize
from rasterio.transform import Affine
from rio_cogeo import cog_validate

from pipelines.build import BuildConfig
from pipelines.build.sources.registry import open_source
from pipelines.evaluate.image_file import read_image
from pipelines.evaluate.predict import predict_file
from pipelines.labels.tiling import Window
from pipelines.maps.compute import Mapper
from pipelines.maps.make import make_map
from pipelines.maps.request import Request
from tests.geotiffs import UTM, scene, write
from tests.unit.maps.conftest import SIZE
from unigeoseg.errors import UserError
from unigeoseg.question import Question

ASK = Question.ask(text="the block")
#: Probability that cuts the untrained model's answers to these scenes in half.
HALF = 0.5
PLAIN = {"threshold": HALF, "formats": ("gpkg",)}


@pytest.fixture(autouse=True)
def _one_day(monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")


def mapped(export, path, out, **more):
    return make_map(
        Request(
            **{"model": export, "inputs": (str(path),), "out": str(out), "text": "the block", **PLAIN, **more}
        ),
        progress=False,
    )


def plain_blend(segmenter, pixels, threshold, skip=()):
    """Mask and score in one array, by numpy's own padding and a direct formula for the weights."""
    height, width = pixels.shape[:2]
    n, s = SIZE // 4, SIZE - SIZE // 4
    down, across = (1 if length <= SIZE else math.ceil((length - n) / s) for length in (height, width))
    padded = np.pad(pixels, ((0, down * s + n - height), (0, across * s + n - width), (0, 0)), "reflect")
    total, weight = np.zeros(padded.shape[:2]), np.zeros(padded.shape[:2])
    places = np.arange(SIZE)

    def ramp(number, count):
        rising = 2 * places + 1 if number > 0 else np.full(SIZE, 2 * n)
        falling = 2 * (SIZE - 1 - places) + 1 if number < count - 1 else np.full(SIZE, 2 * n)
        return np.minimum(np.minimum(rising, falling), 2 * n)

    for i, j in np.ndindex(down, across):
        if (i, j) in skip:
            continue
        part = np.s_[i * s : i * s + SIZE, j * s : j * s + SIZE]
        (logits,) = segmenter.logits([np.ascontiguousarray(padded[part])], [ASK])
        weights = np.outer(ramp(i, down), ramp(j, across))
        total[part] += np.round(np.clip(logits.astype(np.float64), -16, 16) * 1024) * weights
        weight[part] += weights
    total, weight = total[:height, :width], weight[:height, :width]
    mean = np.floor(total / np.maximum(weight, 1))
    cut = round(math.log(threshold / (1 - threshold)) * 1024)
    mask, score = (total > cut * weight).astype(np.uint8), np.rint(250 / (1 + np.exp(-mean / 1024)))
    mask[weight == 0], score[weight == 0] = 254, 254
    return mask, score.astype(np.uint8)


def read(folder, name="mask.tif"):
    with rasterio.open(folder / name) as file:
        return file.read(1)


def check_objects(folder, result):
    """Polygons filled on the raster's grid are the mask; areas and scores are those of the pixels."""
    layer = geopandas.read_file(folder / "objects.gpkg", layer="objects")
    assert len(layer) == result["objects"]
    with rasterio.open(folder / "mask.tif") as file:
        mask, transform = file.read(1), file.transform
        assert (str(layer.crs) if layer.crs else None) == (str(file.crs) if file.crs else None)
    if len(layer):
        assert layer.is_valid.all() and set(layer.geom_type) == {"Polygon"}
        filled = rasterize(layer.geometry, mask.shape, transform=transform)
        assert (filled == (mask == 1)).all()
        assert layer["area_px"].sum() == (mask == 1).sum()
        assert layer["id"].is_unique and layer["score_mean"].between(0, 1).all()
    return layer


DEGREES = Affine(4e-6, 0, 13.4, 0, -3e-6, 52.5)
ROTATED = Affine.translation(400000, 5600000) @ Affine.rotation(25) @ Affine.scale(0.5, -0.5)
TALL = scene(200, 150)
FORMS = {
    "utm": (TALL, {}),
    "tiled": (TALL, {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}),
    "degrees": (TALL, {"crs": "EPSG:4326", "transform": DEGREES}),
    "rotated": (TALL, {"transform": ROTATED}),
    "south-up": (TALL, {"transform": Affine(0.5, 0, 400000, 0, 0.5, 5600000)}),
    "16-bit": (scene(200, 150, dtype=np.uint16), {}),
    "float": (scene(200, 150).astype(np.float32) / 255, {}),
    "one-band": (TALL[:1], {}),
    "four-bands": (scene(200, 150, bands=4), {"photometric": "RGB"}),
    "no-crs": (TALL, {"crs": None, "transform": None}),
    "strip": (scene(40, 300), {}),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_map_is_the_plain_blend(export, segmenter, tmp_path, form):
    bands, options = FORMS[form]
    path = write(tmp_path / "x.tif", bands, **options)
    result = mapped(export, path, tmp_path / "out", strides=2, pixels=form == "no-crs")
    mask, score = plain_blend(segmenter, read_image(path), HALF)
    assert (read(tmp_path / "out") == mask).all()
    assert (read(tmp_path / "out", "score.tif") == score).all()
    assert 0.02 < (mask == 1).mean() < 0.98  # or the comparison would say little
    check_objects(tmp_path / "out", result)
    assert result["failed"] == 0 and result["computed"] == result["windows"] > 1
    with rasterio.open(path) as image, rasterio.open(tmp_path / "out/mask.tif") as file:
        assert file.crs == image.crs and sorted(file.bounds) == sorted(image.bounds)
        assert file.nodata == 255
        if form in ("utm", "degrees", "rotated"):
            assert np.allclose(file.transform, image.transform, rtol=1e-12)
    valid, errors, _ = cog_validate(tmp_path / "out/mask.tif", quiet=True)
    assert valid, errors


NAMES = ("mask.tif", "score.tif", "objects.gpkg")


def bytes_of(folder):
    return {name: (folder / name).read_bytes() for name in NAMES}


def test_blocks_of_any_size_and_a_killed_run_give_the_same_bytes(export, tmp_path, monkeypatch):
    path = write(tmp_path / "x.tif", scene(330, 400), tiled=True, blockxsize=64, blockysize=64)
    mapped(export, path, tmp_path / "whole", strides=12)
    expected = bytes_of(tmp_path / "whole")
    for strides in (1, 3):
        mapped(export, path, tmp_path / f"s{strides}", strides=strides)
        assert bytes_of(tmp_path / f"s{strides}") == expected

    real, calls = Mapper.block, []

    def killed(self, row, column):
        calls.append((row, column))
        if len(calls) == 5:
            raise KeyboardInterrupt
        return real(self, row, column)

    monkeypatch.setattr(Mapper, "block", killed)
    with pytest.raises(KeyboardInterrupt):
        mapped(export, path, tmp_path / "killed", strides=3)
    assert not (tmp_path / "killed/mask.tif").exists()
    result = mapped(export, path, tmp_path / "killed", strides=3, resume=True)
    assert len(calls) == 4 + 9 - 4 + 1  # four were kept
    assert bytes_of(tmp_path / "killed") == expected
    assert result["computed"] == result["windows"]
    assert not (tmp_path / "killed/unfinished.sqlite").exists()
    again = mapped(export, path, tmp_path / "killed", strides=3, resume=True)
    assert again == result and len(calls) == 10


@pytest.mark.parametrize("shape", [(64, 64), (40, 64), (30, 50), (64, 33)])
def test_a_small_raster_is_what_predict_says(export, tmp_path, shape):
    path = write(tmp_path / "x.tif", scene(*shape))
    result = mapped(export, path, tmp_path / "out")
    predict_file(export, path, ASK, tmp_path / "predicted", HALF)
    assert (read(tmp_path / "out") == read(tmp_path / "predicted")).all()
    assert result["windows"] == 1
    check_objects(tmp_path / "out", result)


@pytest.mark.parametrize("how", ["nodata", "mask", "nan", "option"])
def test_what_holds_no_data_is_255_and_empty_windows_are_skipped(export, segmenter, tmp_path, how):
    bands = np.maximum(scene(200, 200), 1)
    empty = np.zeros((200, 200), bool)
    empty[:, 100:] = True
    empty[:20, :30] = True
    options, more = {}, {}
    if how == "mask":
        options["mask"] = ~empty
    elif how == "nan":
        bands = bands.astype(np.float32)
        bands[:, empty] = np.nan
    else:
        bands[:, empty] = 0
        more = {"nodata": 0.0} if how == "option" else {}
        options = {} if how == "option" else {"nodata": 0}
    path = write(tmp_path / "x.tif", bands, **options)
    result = mapped(export, path, tmp_path / "out", strides=1, **more)
    mask = read(tmp_path / "out")
    assert ((mask == 255) == empty).all()
    # Of the windows from column 144 on nothing holds data; those from 96 on have 4 of 64 columns.
    assert result["skipped"] == 4 and result["computed"] == result["windows"] - 4
    if how != "option":
        pixels = read_image(path)
        blend, score = plain_blend(segmenter, pixels, HALF, skip={(i, 3) for i in range(4)})
        assert (mask[~empty] == blend[~empty]).all()
        assert (read(tmp_path / "out", "score.tif")[~empty] == score[~empty]).all()
    layer = check_objects(tmp_path / "out", result)
    assert layer["cut"].any()


def test_a_window_with_a_speck_of_data_is_not_computed(export, tmp_path):
    bands = np.zeros((3, 200, 200), np.uint8)
    bands[:, :64, :64] = scene(64, 64) | 1
    bands[:, 190, 190] = 200
    path = write(tmp_path / "x.tif", bands, nodata=0)
    result = mapped(export, path, tmp_path / "out")
    mask = read(tmp_path / "out")
    assert (
        mask[190, 190] == 254
        and (mask[:64, :64] < 2).all()
        and (mask == 255).sum() == 200 * 200 - 64 * 64 - 1
    )
    assert result["computed"] == 4 and result["failed"] == 0


def test_nothing_found_is_an_empty_layer(export, tmp_path):
    path = write(tmp_path / "x.tif", scene(100, 100))
    formats = ("gpkg", "parquet", "geojson")
    result = mapped(export, path, tmp_path / "out", threshold=0.999999, formats=formats)
    assert result["objects"] == 0 and not (read(tmp_path / "out") == 1).any()
    layer, parquet = (
        check_objects(tmp_path / "out", result),
        geopandas.read_parquet(result["outputs"]["parquet"]),
    )
    assert list(layer.columns) == list(parquet.columns) and parquet.crs == layer.crs == UTM
    assert len(geopandas.read_file(result["outputs"]["geojson"])) == 0


def test_a_raster_too_thin_to_look_at_is_refused(export, tmp_path):
    with pytest.raises(UserError, match=r"x.tif is 60 x 2 pixels: too thin"):
        mapped(export, write(tmp_path / "x.tif", scene(2, 60)), tmp_path / "out")


def test_areas_are_geodesic_and_objects_say_where_they_come_from(export, tmp_path):
    path = write(tmp_path / "x.tif", scene(150, 150))
    mapped(export, path, tmp_path / "utm")
    layer = check_objects(tmp_path / "utm", json.loads((tmp_path / "utm/map.json").read_text()))
    flat = layer.geometry.area  # UTM's scale near its central meridian's 100 km is within a thousandth
    assert np.allclose(layer["area_m2"], flat, rtol=2e-3)
    assert np.allclose(flat, layer["area_px"] * 0.25)
    assert set(layer["source"]) == {path} and set(layer["model"]) == {export}
    assert set(layer["instruction"]) == {"the block"} and set(layer["task"]) == {"referring"}
    assert set(layer["date"].astype(str).str[:10]) == {"2023-11-14"}


def test_a_failing_block_is_told_left_as_254_and_made_on_resume(export, tmp_path, monkeypatch):
    path = write(tmp_path / "x.tif", scene(330, 400))
    real, tries = Mapper.block, []

    def failing(self, row, column):
        if (row, column) == (1, 1):
            tries.append(1)
            raise RuntimeError("out of\nmemory")
        return real(self, row, column)

    with monkeypatch.context() as patch:
        patch.setattr(Mapper, "block", failing)
        result = mapped(export, path, tmp_path / "out", strides=3)
    assert len(tries) == 2 and result["failed"] == 1
    (line,) = (tmp_path / "out/failed.jsonl").read_text().splitlines()
    assert json.loads(line) == {
        "block": [1, 1],
        "rows": [144, 288],
        "columns": [144, 288],
        "reason": "RuntimeError: out of memory",
    }
    mask = read(tmp_path / "out")
    assert (mask[144:288, 144:288] == 254).all() and (mask == 254).sum() == 144**2
    assert "could not be computed" in (tmp_path / "out/report.html").read_text()
    mapped(export, path, tmp_path / "out", strides=3, resume=True)
    mapped(export, path, tmp_path / "sound", strides=3)
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "sound")
    assert (tmp_path / "out/failed.jsonl").read_text() == ""


def test_more_objects_than_geojson_takes_are_in_a_geopackage(export, tmp_path, monkeypatch):
    path = write(tmp_path / "a.tif", scene(100, 148), UTM)
    whole = mapped(export, path, tmp_path / "whole", formats=("geojson",))
    assert set(whole["outputs"]) >= {"geojson"} and not any("GeoJSON" in w for w in whole["warnings"])
    monkeypatch.setattr("pipelines.maps.vectors.MOST_GEOJSON", whole["objects"] - 1)
    told = mapped(export, path, tmp_path / "many", formats=("geojson",))
    assert len(geopandas.read_file(told["outputs"]["objects"])) == whole["objects"] == told["objects"] > 0
    assert "geojson" not in told["outputs"] and "they are in objects.gpkg" in told["warnings"][-1]


@pytest.mark.parametrize("form", ["utm", "degrees", "rotated", "south-up"])
def test_what_was_mapped_is_read_as_labels(export, tmp_path, form):
    """A map that was corrected in a GIS trains the next model: here uncorrected, so its mask comes back."""
    bands, options = FORMS[form]
    write(tmp_path / "x.tif", bands, **options)
    result = mapped(export, tmp_path / "x.tif", tmp_path / "out")
    (tmp_path / "t.yaml").write_text(
        "licence: mine\nlayouts: [{image: x.tif, labels: out/objects.gpkg, boxes: vector, "
        "attribute: instruction}]\nclasses: [{name: the block, category: 25 Building}]\n"
    )
    source = open_source(str(tmp_path / "t.yaml"), tmp_path, BuildConfig())
    opened = source.read(next(iter(source.items())))
    regions = opened.cut(Window(0, 0, opened.height, opened.width)).regions
    found = sum(region.full(opened.height, opened.width) for region in regions)
    mask = read(tmp_path / "out") == 1
    assert len(regions) == result["objects"] > 1
    assert (found == mask).all()
