import csv
import json

import numpy as np
import pytest

from pipelines.build import BuildConfig, build_store
from pipelines.build.sources.annotations import read_annotations
from pipelines.build.sources.registry import open_source
from pipelines.labels.outlines import Outline, draw, fault, order
from pipelines.labels.stages import StageCounts
from pipelines.labels.tiling import Window
from tests.unit.build.layouts import write_image

VOC = """<annotation><filename>00001.jpg</filename>
<object><name>ship</name><bndbox><xmin>11</xmin><ymin>21</ymin><xmax>30</xmax><ymax>60</ymax></bndbox></object>
<object><name>windmill</name><bndbox><xmin>90</xmin><ymin>1</ymin><xmax>140</xmax><ymax>40</ymax></bndbox></object>
</annotation>"""
DOTA = """imagesource:GoogleEarth
gsd:0.146
10.0 20.0 40.0 30.0 36.0 42.0 6.0 32.0 ship 0
60 60 90 60 90 90 60 90 large-vehicle 1
"""
FAIR1M = """<?xml version="1.0"?><annotation><objects><object>
<possibleresult><name>Boeing737</name></possibleresult>
<points><point>10.5,20.0</point><point>40.0,30.0</point><point>36.0,42.0</point><point>6.0,32.0</point>
<point>10.5,20.0</point></points></object></objects></annotation>"""


def inside(corners, height, width):
    """Pixels whose centres lie in a polygon, by counting crossings in float64."""
    mask = np.zeros((height, width), bool)
    for y in range(height):
        for x in range(width):
            crossings, cx, cy = 0, x + 0.5, y + 0.5
            for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, 0), strict=True):
                if (y0 > cy) != (y1 > cy):
                    crossings += x0 + (cy - y0) / (y1 - y0) * (x1 - x0) > cx
            mask[y, x] = crossings % 2
    return mask


@pytest.mark.parametrize("seed", range(12))
def test_outlines_fill_the_pixels_whose_centres_they_hold(seed):
    rng = np.random.default_rng(seed)
    corners = order(rng.uniform(-15, 75, (4, 2)))
    expected = inside(corners, 48, 60)
    region = draw(Outline(79, corners), Window(0, 0, 48, 60))
    found = np.zeros_like(expected) if region is None else region.full(48, 60).astype(bool)
    assert (found != expected).sum() <= 1  # a centre on an edge may go either way
    window = Window(13, 21, 30, 25)
    part = draw(Outline(79, corners), window)
    cut = np.zeros((30, 25), bool) if part is None else part.full(30, 25).astype(bool)
    assert (cut != expected[window.slices]).sum() <= 1


def test_what_is_no_usable_outline():
    box = np.asarray([[0, 0], [10, 0], [10, 10], [0, 10]], float)
    assert fault(box, 50, 60) is None
    assert fault(box - 5, 50, 60) is None
    assert fault(box - 10, 50, 60) == "outside"
    assert fault(box + np.asarray([60, 0]), 50, 60) == "outside"
    assert fault(box * [1, 0.01], 50, 60) == "degenerate"
    assert fault(box[:2], 50, 60) == "degenerate"
    assert fault(box * np.nan, 50, 60) == "degenerate"


def test_label_files(tmp_path):
    for name, text in (("a.xml", VOC), ("a.txt", DOTA), ("f.xml", FAIR1M)):
        (tmp_path / name).write_text(text)
    ship, mill = read_annotations(tmp_path / "a.xml", "voc", "")
    assert (ship.name, ship.outline.tolist()) == ("ship", [[10, 20], [30, 20], [30, 60], [10, 60]])
    assert mill.outline[:, 0].max() == 140
    ship, truck = read_annotations(tmp_path / "a.txt", "dota", "")
    assert ship.outline.tolist() == [[10, 20], [40, 30], [36, 42], [6, 32]] and truck.name == "large-vehicle"
    (plane,) = read_annotations(tmp_path / "f.xml", "fair1m", "")
    assert plane.name == "Boeing737" and plane.outline.shape == (4, 2)


def dota(root, name="P0001", text=DOTA, size=(100, 120)):
    rng = np.random.default_rng(0)
    write_image(root / "train" / "images" / f"{name}.png", rng.integers(0, 256, (*size, 3)).astype(np.uint8))
    (root / "train" / "labelTxt").mkdir(parents=True, exist_ok=True)
    (root / "train" / "labelTxt" / f"{name}.txt").write_text(text)


def test_objects_are_counted_clipped_and_dropped(tmp_path):
    dota(
        tmp_path,
        text=DOTA
        + "-20 -20 15 -20 15 15 -20 15 plane 0\n"  # reaches out
        + "300 300 320 300 320 320 300 320 plane 0\n"  # outside
        + "5 5 5 5 5 5 5 5 plane 0\n"  # a point
        + "30 60 40 70 40 60 30 70 harbor 0\n",  # corners in a wrong order
    )
    source = open_source("dota", tmp_path, BuildConfig())
    (item,) = source.items()
    opened = source.read(item)
    regions = opened.cut(Window(0, 0, opened.height, opened.width)).regions
    assert sorted(r.category_id for r in regions) == [68, 78, 79, 87]
    assert {r.mask_from for r in regions} == {"polygon"}
    assert next(r for r in regions if r.category_id == 78).area == 100
    assert next(r for r in regions if r.category_id == 68).area == 225
    counts = StageCounts()
    opened.count(counts)
    row = next(r for r in counts.rows() if r["name"] == "boxes")
    assert (row["in"], row["out"], row["dropped"]) == (6, 4, {"degenerate": 1, "outside": 1})
    assert row["noted"] == {"clipped": 1, "mask from polygon": 4}


def test_a_store_of_boxes_says_how_each_mask_was_made(tmp_path):
    dota(tmp_path / "in")
    result = build_store(
        "dota", tmp_path / "in", tmp_path / "out", BuildConfig(workers=0), progress=False, preview=False
    )
    assert result["samples"]["interactive"] == 2
    shard = (tmp_path / "out" / "shards" / "train-00000.tar").read_bytes()
    assert shard.count(b'"mask_from":"polygon"') == sum(result["samples"].values())


def test_an_unknown_class_names_the_file_and_the_way_out(tmp_path):
    from unigeoseg.errors import UserError

    dota(tmp_path, text=DOTA.replace("ship", "zeppelin"))
    source = open_source("dota", tmp_path, BuildConfig())
    with pytest.raises(UserError, match=r"P0001\.txt: class 'zeppelin' .*max_unknown_share"):
        source.read(next(iter(source.items())))


def test_a_table_of_ones_own_on_real_boxes(shared, tmp_path):
    """Airbus aircraft: one CSV for all images, boxes past the edge; described by a table, no code."""
    root = shared / "data" / "airbus_aircraft" / "data"
    table = tmp_path / "airbus.yaml"
    table.write_text(
        "licence: CC-BY-NC-SA-4.0\n"
        "layouts: [{image: 'train/{name}.jpg', labels: annotations.csv, boxes: csv}]\n"
        "classes:\n"
        "  - {name: Airplane, category: 68 Airplane}\n"
        "  - {name: Truncated_airplane, category: 68 Airplane}\n"
    )
    if not list((root / "train").glob("*.jpg")):
        pytest.skip("no Airbus images")
    source = open_source(str(table), root, BuildConfig())
    items = list(source.items())
    assert source.name == "airbus" and len(items) == len(list((root / "train").glob("*.jpg")))
    with (root / "annotations.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    counts = StageCounts()
    for item in items[:3]:
        opened = source.read(item)
        for window in (Window(0, 0, 600, opened.width), Window(600, 0, opened.height - 600, opened.width)):
            opened.cut(window)
        opened.count(counts)
    names = {item.detail["image"].rpartition("/")[2] for item in items[:3]}
    row = next(r for r in counts.rows() if r["name"] == "boxes")
    assert row["in"] == sum(r["image_id"] in names for r in rows) > 0
    assert row["out"] == row["in"]
    json.dumps(row)
