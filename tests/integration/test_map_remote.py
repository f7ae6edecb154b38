"""Rasters and prompts on a web server and in an object store: the same map as from a folder."""

import geopandas
import pytest
import shapely

from cluster.s3 import LocalS3
from pipelines.maps.make import make_map
from pipelines.maps.request import Request
from pipelines.storage.filesystem import open_filesystem
from tests.geotiffs import UTM, scene, write
from tests.tiny_export import write_export
from tests.web_server import WebServer

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("remote")
    write_export(folder / "export")
    write(folder / "x.tif", scene(150, 700), tiled=True, blockxsize=128, blockysize=128, compress="deflate")
    points = [shapely.Point(400020, 5599980), shapely.Point(400050, 5599950)]
    geopandas.GeoDataFrame(geometry=points, crs=UTM).to_file(folder / "p.gpkg", driver="GPKG")
    return folder


def mapped(model, raster, out, **more):
    make_map(Request(str(model), (str(raster),), str(out), **more), progress=False)
    return [(out / name).read_bytes() for name in ("mask.tif", "score.tif")]


def test_a_raster_on_a_web_server_is_read_by_ranges(files, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    here = mapped(files / "export", files / "x.tif", tmp_path / "here", text="the block")
    with WebServer(files) as web:
        there = mapped(files / "export", f"{web.url}/x.tif", tmp_path / "there", text="the block")
        assert web.asked["x.tif"] > 1
    assert there == here


def test_everything_in_an_object_store(files, tmp_path, monkeypatch):
    here = mapped(files / "export", files / "x.tif", tmp_path / "here", prompts=str(files / "p.gpkg"))
    with LocalS3() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        filesystem, bucket = open_filesystem(server.url)
        filesystem.put(f"{files}/", f"{bucket}/in/", recursive=True)
        url = f"{server.url}/in"
        there = mapped(f"{url}/export", f"{url}/x.tif", tmp_path / "there", prompts=f"{url}/p.gpkg")
        again = mapped(f"{url}/export", f"{url}/*.tif", tmp_path / "pattern", prompts=f"{url}/p.gpkg")
    assert there == here == again
