"""A map whose process is killed goes on in another one and ends with the same bytes."""

import sqlite3
import time

import pytest

from pipelines.maps.make import make_map
from pipelines.maps.request import Request
from tests.geotiffs import scene, write
from tests.tiny_export import write_export
from tests.warm import start_warm

pytestmark = pytest.mark.integration

_MAP = """
import sys
from pipelines.maps.make import make_map
from pipelines.maps.request import Request
make_map(Request(sys.argv[1], (sys.argv[2],), sys.argv[3], text="the block", strides=1), progress=False)
"""


def parts_in(path):
    """How many parts are finished; 0 while another process writes."""
    try:
        with sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True) as base:
            return base.execute("SELECT COUNT(*) FROM parts").fetchone()[0]
    except sqlite3.Error:
        return 0


def test_killed_and_resumed_is_the_whole(tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    export = str(write_export(tmp_path / "export"))
    raster = write(tmp_path / "x.tif", scene(600, 600))
    out = tmp_path / "out"
    process = start_warm("-c", _MAP, export, raster, out)
    try:
        while parts_in(out / "unfinished.sqlite") < 5 and process.poll() is None:
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    assert not (out / "map.json").exists(), "it was killed too late"
    for name, strides, resume in (("out", 1, True), ("whole", 12, False)):
        request = Request(
            export, (raster,), str(tmp_path / name), text="the block", strides=strides, resume=resume
        )
        result = make_map(request, progress=False)
        assert result["failed"] == 0
    for name in ("mask.tif", "score.tif", "objects.gpkg"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
