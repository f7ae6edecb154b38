"""A raster at another resolution than the model's training pictures is told before a map is made."""

import json
import shutil

import pytest

from pipelines.evaluate.models import export_seen_at
from pipelines.maps.planning import lay_out
from pipelines.maps.request import Request
from tests.geotiffs import scene, write

SHRUNK = {"shrink": [2.0, 2.0, 4.0], "gsd": None}


@pytest.fixture
def warned(export, tmp_path):
    """Warnings of a map of half a metre a pixel by a model that says what it has seen."""

    def told(seen_at, size=(200, 230), crs="EPSG:32633", **more):
        if not (tmp_path / "export").exists():
            shutil.copytree(export, tmp_path / "export")
        path = tmp_path / "export/config.json"
        content = json.loads(path.read_text())
        content.pop("seen_at", None)
        path.write_text(json.dumps(content | ({"seen_at": seen_at} if seen_at else {})))
        raster = write(tmp_path / "city.tif", scene(*size), crs=crs)
        asked = {"text": "the block", "none": False, "out": str(tmp_path / "out"), **more}
        found = lay_out(Request(str(tmp_path / "export"), (str(raster),), **asked)).warnings
        return [text for text in found if "training pictures" in text]

    return told


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        ({"shrink": [1, 1, 1], "gsd": [0.3, 0.6]}, None),
        ({"shrink": [2, 2, 2], "gsd": [0.3, 0.6]}, None),  # metres say more than pixels
        ({"shrink": [1, 1, 1], "gsd": [1.0, 2.0]}, None),
        (
            {"shrink": [1, 1, 1], "gsd": [1.01, 4.04]},
            "things are larger than it knows them; --gsd 2.02 makes",
        ),
        (
            {"shrink": [1, 1, 1], "gsd": [0.1, 0.24]},
            "things are smaller than it knows them; --gsd 0.155 makes",
        ),
        ({"shrink": [1, 1.4, 2], "gsd": None}, None),
        (SHRUNK, "1/2 of their pixels a side"),
        ({"shrink": [0.5, 0.5, 0.5], "gsd": None}, "--gsd 0.25 shows"),
        ({}, None),
    ],
)
def test_by_metres_where_they_are_known_else_by_pixels(warned, seen, words):
    found = warned(seen)
    assert len(found) == bool(words) and all(words in text for text in found), found


def test_the_way_out_ends_the_warning(warned):
    (text,) = warned({"shrink": [1, 1, 1], "gsd": [1.01, 4.04]})
    assert "--gsd 2.02 " in text
    assert warned({"shrink": [1, 1, 1], "gsd": [1.01, 4.04]}, gsd=2.02) == []


def test_a_raster_without_crs_is_told_how_to_be_shrunk(warned):
    (text,) = warned(SHRUNK, crs=None, pixels=True)
    assert "gdal_translate -outsize 50% 0" in text and "--gsd" not in text


def test_what_is_looked_at_whole_has_no_resolution_of_its_own(warned):
    assert warned(SHRUNK, size=(60, 60)) == [] and warned(SHRUNK, scope="scene") == []


def test_an_export_of_others_says_nothing(tmp_path):
    (tmp_path / "config.json").write_text("[]")
    assert export_seen_at(str(tmp_path)) == {} and export_seen_at(str(tmp_path / "none")) == {}
