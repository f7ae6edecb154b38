"""One window a prompt, areas, resolutions, one look at the whole, several inputs."""

import json

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from rasterio.features import rasterize

from pipelines.evaluate.image_file import read_image
from pipelines.maps.make import make_map
from pipelines.maps.request import Request
from tests.geotiffs import AT, UTM, scene, write
from unigeoseg.errors import UserError
from unigeoseg.question import Question


def mapped(export, path, out, **more):
    return make_map(
        Request(**{"model": export, "inputs": (str(path),), "out": str(out), **more}), progress=False
    )


def layer_of(path, shapes, crs=UTM, at=AT):
    """Shapes given in pixels as a GeoPackage in coordinates."""
    placed = [shapely.transform(s, lambda p: np.stack(at @ (p[:, 0], p[:, 1]), 1)) for s in shapes]
    geopandas.GeoDataFrame(geometry=placed, crs=UTM).to_crs(crs).to_file(path, driver="GPKG")
    return str(path)


def read(folder, name="mask.tif"):
    with rasterio.open(folder / name) as file:
        return file.read(1)


@pytest.fixture(scope="module")
def raster(tmp_path_factory):
    return write(tmp_path_factory.mktemp("r") / "x.tif", scene(220, 300))


@pytest.mark.parametrize("crs", [UTM, "EPSG:4326"])
def test_each_prompt_is_asked_in_a_window_around_it(export, segmenter, raster, tmp_path, crs):
    shapes = [
        shapely.Point(100, 90),
        shapely.Point(3, 217),  # the window is moved inside
        shapely.MultiPoint([(200, 100), (210, 110)]),
        shapely.box(40, 40, 60, 56),
        shapely.box(20, 20, 160, 80),  # larger than a window
    ]
    prompts = layer_of(tmp_path / "p.gpkg", shapes, crs)
    result = mapped(export, raster, tmp_path / "out", prompts=prompts)
    assert (result["windows"], result["computed"], result["parts"]) == (5, 5, 5)
    pixels = read_image(raster)
    windows = [(58, 68, 64), (156, 0, 64), (73, 173, 64), (16, 18, 64), (0, 0, 210)]
    expected, score = np.full((220, 300), 254, np.uint8), np.full((220, 300), 254, np.uint8)
    masks = []
    for (top, left, side), shape in zip(windows, shapes, strict=True):
        part = np.s_[top : min(top + side, 220), left : left + side]
        height, width = pixels[part].shape[:2]
        corners = (shapely.get_coordinates(shape) - [left, top]) / [width, height]
        if shape.geom_type == "Polygon":
            asked = Question.ask(box=[*corners.min(0), *corners.max(0)])
        else:
            asked = Question.ask(points=corners.tolist())
        (logits,) = segmenter.logits([np.ascontiguousarray(pixels[part])], [asked])
        level = np.rint(250 / (1 + np.exp(-np.rint(np.clip(logits, -16, 16) * np.float32(1024)) / 1024)))
        for values, new in ((expected, logits > 0), (score, level)):
            old = values[part]
            values[part] = np.where(old == 254, new, np.maximum(old, new))
        full = np.zeros((220, 300), bool)
        full[part] = logits > 0
        masks.append(full)
    found = read(tmp_path / "out")
    if crs == UTM:
        assert (found == expected).all()
        assert (read(tmp_path / "out", "score.tif") == score).all()
    else:  # coordinates come back with their last digits changed
        assert (found == expected).mean() > 0.999
    layer = geopandas.read_file(tmp_path / "out/objects.gpkg")
    assert set(layer.geom_type) <= {"MultiPolygon"} and layer.crs == UTM
    assert len(layer) == result["objects"] == sum(mask.any() for mask in masks)
    if crs == UTM:
        for row in layer.itertuples():
            filled = rasterize([row.geometry], (220, 300), transform=AT)
            assert (filled == masks[row.prompt]).all()
            assert row.task == "interactive" and "[" in row.instruction


def test_prompts_outside_are_told(export, raster, tmp_path):
    prompts = layer_of(tmp_path / "p.gpkg", [shapely.Point(-5, 5), shapely.Point(50, 50)])
    result = mapped(export, raster, tmp_path / "out", prompts=prompts)
    assert result["prompts_outside"] == [0] and result["windows"] == 1
    assert "1 of 2 prompts lie outside" in result["warnings"][0]
    away = layer_of(tmp_path / "away.gpkg", [shapely.Point(-5, 5)])
    with pytest.raises(UserError, match="none of 1 shapes lies on"):
        mapped(export, raster, tmp_path / "away", prompts=away)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([shapely.LineString([(1, 1), (5, 5)])], "shape 0 is LineString"),
        ([shapely.Point(5, 5), shapely.MultiPoint([(1, 1), (2, 2), (3, 3), (4, 4)])], "shape 1 has 4 points"),
    ],
)
def test_shapes_that_are_no_prompts(export, raster, tmp_path, shapes, message):
    with pytest.raises(UserError, match=message):
        mapped(export, raster, tmp_path / "out", prompts=layer_of(tmp_path / "p.gpkg", shapes))


@pytest.mark.parametrize("crs", [UTM, "EPSG:3857"])
def test_an_area_is_mapped_as_the_whole_is(export, raster, tmp_path, crs):
    shape = shapely.Polygon([(20.2, 10.3), (150.7, 30.1), (90.4, 140.6)])
    aoi = layer_of(tmp_path / "a.gpkg", [shape], crs)
    whole = mapped(export, raster, tmp_path / "whole", text="the block")
    part = mapped(export, raster, tmp_path / "part", text="the block", aoi=aoi, strides=2)
    inside = rasterize([shape], (220, 300)) > 0
    mask = read(tmp_path / "part")
    if crs == UTM:
        assert ((mask != 255) == inside).all()
    else:
        assert ((mask != 255) == inside).mean() > 0.999
    assert part["computed"] < whole["computed"] and part["computed"] + part["skipped"] == part["windows"]
    both = inside & (mask < 2)
    assert (mask[both] == read(tmp_path / "whole")[both]).mean() > 0.9  # windows outside add nothing here
    with pytest.raises(UserError, match="lies outside"):
        away = layer_of(tmp_path / "b.gpkg", [shapely.box(900, 900, 950, 950)])
        mapped(export, raster, tmp_path / "c", text="the block", aoi=away)
    with pytest.raises(UserError, match="other shapes than polygons"):
        points = layer_of(tmp_path / "d.gpkg", [shapely.Point(5, 5)])
        mapped(export, raster, tmp_path / "d", text="the block", aoi=points)


def test_another_resolution(export, segmenter, tmp_path):
    """Twice as coarse: what a raster of means gives."""
    bands = scene(200, 240)
    path = write(tmp_path / "x.tif", bands)
    result = mapped(export, path, tmp_path / "out", text="the block", gsd=1.0)
    assert result["size"] == [100, 120] and abs(result["gsd"] - 1) < 2e-3
    with rasterio.open(tmp_path / "out/mask.tif") as mask, rasterio.open(path) as image:
        assert mask.bounds == image.bounds and mask.shape == (100, 120)
    means = bands.reshape(3, 100, 2, 120, 2).mean((2, 4))
    small = write(tmp_path / "small.tif", np.floor(means + 0.5).astype(np.uint8), transform=AT @ AT.scale(2))
    mapped(export, small, tmp_path / "small-out", text="the block")
    assert (
        read(tmp_path / "out") == read(tmp_path / "small-out")
    ).mean() > 0.99  # means round in another way
    fine = mapped(export, path, tmp_path / "fine", text="the block", gsd=0.4)
    assert fine["size"][0] == pytest.approx(250, abs=1)
    for strides in (1, 5):  # any block size gives the same bytes here too
        mapped(export, path, tmp_path / f"s{strides}", text="the block", gsd=0.83, strides=strides)
    assert (tmp_path / "s1/mask.tif").read_bytes() == (tmp_path / "s5/mask.tif").read_bytes()
    assert (tmp_path / "s1/objects.gpkg").read_bytes() == (tmp_path / "s5/objects.gpkg").read_bytes()


def test_one_look_at_the_whole(export, raster, tmp_path):
    result = mapped(export, raster, tmp_path / "out", text="the largest block", scope="scene")
    assert result["windows"] == result["computed"] == 1 and max(result["size"]) == 64
    assert not any("scope scene" in text for text in result["warnings"])
    with rasterio.open(tmp_path / "out/mask.tif") as mask, rasterio.open(raster) as image:
        assert np.allclose(mask.bounds, image.bounds)
    told = mapped(export, raster, tmp_path / "windows", text="the largest block")
    assert any("'largest'" in text and "--scope scene" in text for text in told["warnings"])


def test_several_inputs_have_one_stretch_and_a_folder_each(export, tmp_path):
    bands = scene(100, 200, dtype=np.uint16)
    bands[:, :, 100:] //= 4
    for name, columns in (("a", slice(0, 100)), ("b", slice(100, 200))):
        at = AT @ AT.translation(columns.start, 0)
        write(tmp_path / f"in/{name}.tif", bands[:, :, columns], transform=at)
    result = mapped(export, tmp_path / "in/*.tif", tmp_path / "out", text="the block")
    one, two = (json.loads((tmp_path / f"out/{name}/map.json").read_text()) for name in "ab")
    assert one["stretch"] == two["stretch"]
    values = np.concatenate([bands[:, :, :100].reshape(3, -1), bands[:, :, 100:].reshape(3, -1)], 1)
    assert np.allclose(one["stretch"], np.percentile(values, [2, 98], axis=1).T)
    assert result["objects"] == one["objects"] + two["objects"] and result["windows"] == 8
    assert json.loads((tmp_path / "out/map.json").read_text()) == result


def test_formats_and_export(export, raster, tmp_path):
    from pipelines.maps.export import export_map

    formats = ("gpkg", "parquet", "geojson")
    result = mapped(export, raster, tmp_path / "out", text="the block", formats=formats)
    layer = geopandas.read_file(tmp_path / "out/objects.gpkg")
    parquet = geopandas.read_parquet(result["outputs"]["parquet"])
    degrees = geopandas.read_file(result["outputs"]["geojson"])
    assert len(layer) == len(parquet) == len(degrees) == result["objects"] > 1
    assert parquet.crs == layer.crs == UTM and degrees.crs == "EPSG:4326"
    assert (parquet.geometry.to_wkb() == layer.geometry.to_wkb()).all()
    assert list(parquet["id"]) == list(layer["id"]) == list(degrees["id"])
    told = export_map(tmp_path / "out", tmp_path / "simple", ("parquet", "geojson"), 2.0, "EPSG:3857")
    simple = geopandas.read_parquet(told["outputs"]["parquet"])
    assert simple.crs == "EPSG:3857" and len(simple) == len(layer)
    assert simple.geometry.count_coordinates().sum() < layer.geometry.count_coordinates().sum()
    in_place = mapped(export, raster, tmp_path / "s", text="the block", simplify=2.0)
    again = geopandas.read_file(in_place["outputs"]["objects"])
    assert again.is_valid.all() and again.geometry.count_coordinates().sum() < layer.count_coordinates().sum()
    for folder, message in ((tmp_path / "none", "no finished map"), (tmp_path, "no finished map")):
        with pytest.raises(UserError, match=message):
            export_map(folder, tmp_path / "e", ("parquet",), 0, None)
