"""Masks with soft edges and a threshold, and masks saved as grey RGB: made ones, and real ones."""

import numpy as np
import pytest
from PIL import Image

from pipelines.build import BuildConfig, build_store
from pipelines.build.sources.registry import open_source
from pipelines.labels.stages import StageCounts
from pipelines.labels.tiling import Window
from tests.unit.build.layouts import write_image
from unigeoseg.errors import UserError

TABLE = """
licence: mine
layouts: [{{image: 'images/{{name}}.png', mask: 'groundtruth/{{name}}.{suffix}', threshold: {threshold}}}]
classes: [{classes}]
"""
ROAD = "{name: road, value: 255, category: 12 Road}"
REST = "{name: rest, value: 0, category: 5 Clutter}"


def table(root, threshold, classes=ROAD, suffix="png"):
    (root / "t.yaml").write_text(TABLE.format(threshold=threshold, classes=classes, suffix=suffix))
    return str(root / "t.yaml")


def labels(source):
    (item,) = source.items()
    opened = source.read(item)
    found = opened.cut(Window(0, 0, opened.height, opened.width)).labels
    counts = StageCounts()
    opened.count(counts)
    return found, next(row for row in counts.rows() if row["name"] == "standardise")


def test_values_from_the_threshold_on_are_the_class(tmp_path):
    soft = np.arange(256, dtype=np.uint8).reshape(16, 16).repeat(4, 0).repeat(4, 1)
    write_image(tmp_path / "images" / "a.png", np.zeros((64, 64, 3), np.uint8))
    write_image(tmp_path / "groundtruth" / "a.png", soft)
    found, row = labels(open_source(table(tmp_path, 128), tmp_path, BuildConfig()))
    assert (found == np.where(soft >= 128, 12, 0)).all()
    assert (row["in"], row["out"], row["dropped"]) == (4096, 2048, {"ignore": 2048})
    found, _ = labels(open_source(table(tmp_path, 0.5, f"{REST}, {ROAD}"), tmp_path, BuildConfig()))
    assert (found == np.where(soft >= 1, 12, 5)).all()


def test_probabilities_are_floats_and_what_is_no_number_is_ignored(tmp_path):
    soft = np.linspace(0, 1, 4096, dtype=np.float32).reshape(64, 64)
    soft[5, 5] = np.nan
    write_image(tmp_path / "images" / "a.png", np.zeros((64, 64, 3), np.uint8))
    write_image(tmp_path / "groundtruth" / "a.tif", soft)
    source = open_source(table(tmp_path, 0.5, f"{REST}, {ROAD}", "tif"), tmp_path, BuildConfig())
    found, row = labels(source)
    expected = np.where(soft >= 0.5, 12, 5)
    expected[5, 5] = 0
    assert (found == expected).all() and row["dropped"] == {"no_data": 1}


@pytest.mark.parametrize(
    ("threshold", "classes", "message"),
    [
        (0, ROAD, "greater than 0"),
        (128, REST, "needs one class whose value is not 0"),
        (128, f"{ROAD}, {{name: b, value: 3, category: 10 Water}}", "needs one class whose value is not 0"),
    ],
)
def test_what_is_no_threshold(tmp_path, threshold, classes, message):
    with pytest.raises(UserError, match=message):
        open_source(table(tmp_path, threshold, classes), tmp_path, BuildConfig())


def build(source, root, out):
    config = BuildConfig.model_validate({"workers": 0, "tile": {"size": 256, "stride": 256}})
    return build_store(str(source), root, out, config, progress=False, preview=False)


def test_real_soft_masks_of_roads(shared, tmp_path):
    root = shared / "data" / "epfl_roads"
    result = build(table(tmp_path, 128), root, tmp_path / "out")
    row = next(row for row in result["stages"] if row["name"] == "standardise")
    masks = [np.asarray(Image.open(file)) for file in sorted((root / "groundtruth").glob("*.png"))]
    items = list(open_source(str(tmp_path / "t.yaml"), root, BuildConfig()).items())
    assert len(items) == len(masks) == 34 and result["quarantined"] == []
    # Tiles of 256 cover 400 pixels with an overlap; rows are decoded once, so pixels count once.
    assert row["in"] == 34 * 400 * 400 and row["out"] == sum(int((m >= 128).sum()) for m in masks)
    assert result["samples"]["interactive"] > 50


def test_real_grey_masks_that_are_saved_as_rgb(shared, tmp_path):
    root = shared / "data" / "dronedeploy"
    source = open_source(str(root.with_name("dronedeploy.yaml")), root, BuildConfig())
    items = list(source.items())
    assert len(items) == 64 and len({item.group for item in items}) == 1
    known = {0: 25, 40: 5, 80: 13, 120: 10, 160: 0, 200: 4}
    for item in items[::9]:
        opened = source.read(item)
        found = opened.cut(Window(0, 0, opened.height, opened.width)).labels
        values = np.asarray(Image.open(item.detail["label"]))[..., 0]
        assert (found == np.vectorize(known.get)(values)).all()
