"""A map by actors of Ray Data: the bytes of one process, whatever dies on the way."""

import hashlib
import json
import os
import signal
import sys

import pytest
import ray
import torch

from pipelines.maps import workers
from pipelines.maps.compute import Mapper
from pipelines.maps.make import make_map
from pipelines.maps.request import Request
from tests.geotiffs import scene, write
from tests.tiny_export import write_export

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    return str(write_export(tmp_path_factory.mktemp("maps") / "export", 64))


@pytest.fixture(scope="module")
def rasters(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rasters")
    return tuple(
        write(folder / f"{name}.tif", scene(*size)) for name, size in (("a", (330, 400)), ("b", (60, 60)))
    )


@pytest.fixture(scope="module")
def cluster():
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # actors do not find this file
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(autouse=True)
def _as_the_workers(monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def mapped(export, rasters, out, **more):
    asked = {"text": "the block", "strides": 2, "threshold": 0.5, **more}
    return make_map(Request(export, rasters, str(out), **asked), progress=False)


def bytes_of(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.suffix in (".tif", ".gpkg")
    }


@pytest.fixture(scope="module")
def alone(export, rasters, tmp_path_factory):
    out = tmp_path_factory.mktemp("alone") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", "1700000000")
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        result = mapped(export, rasters, out)
        torch.set_num_threads(threads)
    found = bytes_of(out)
    assert len(found) == 6 and result["objects"] > 0 and result["failed"] == 0
    return found


@pytest.mark.parametrize(
    "count", [pytest.param((1, 1), id="one", marks=pytest.mark.slow), pytest.param((1, 2), id="one-to-two")]
)
def test_workers_give_the_bytes_of_one_process(cluster, export, rasters, alone, tmp_path, count):
    result = mapped(export, rasters, tmp_path / "out", workers=count)
    assert bytes_of(tmp_path / "out") == alone
    assert result["failed"] == 0 and result["computed"] > 0


@pytest.mark.slow
def test_prompts_by_workers(cluster, export, rasters, tmp_path):
    geopandas = pytest.importorskip("geopandas")
    shapely = pytest.importorskip("shapely")
    import rasterio

    with rasterio.open(rasters[0]) as file:
        spots = [shapely.Point(file.xy(row, column)) for row, column in ((40, 50), (200, 300), (310, 20))]
        geopandas.GeoDataFrame(geometry=spots, crs=file.crs).to_file(tmp_path / "p.gpkg")
    asked = {"text": None, "prompts": str(tmp_path / "p.gpkg")}
    mapped(export, rasters[:1], tmp_path / "here", **asked)
    result = mapped(export, rasters[:1], tmp_path / "there", workers=(2, 2), **asked)
    assert result["computed"] == 3 and bytes_of(tmp_path / "there") == bytes_of(tmp_path / "here")


class _Mortal(Mapper):
    """Ends its process at one block, each time or once; fails at another."""

    def block(self, row, column):
        once = os.environ["UNIGEOSEG_TEST_MARK"]
        if (row, column) == (1, 1):
            with open(once, "a") as file:  # noqa: PTH123
                file.write("x")
            if os.path.getsize(once) <= int(os.environ["UNIGEOSEG_TEST_DEATHS"]):  # noqa: PTH202
                os.kill(os.getpid(), signal.SIGKILL)
        if (row, column) == (2, 0) and os.environ["UNIGEOSEG_TEST_DEATHS"] == "99":
            raise RuntimeError("bad\nblock")
        return super().block(row, column)


class _MortalActor(workers._Actor):
    def __init__(self, *args):
        super().__init__(*args)
        workers.Mapper = _Mortal


@pytest.mark.parametrize("deaths", [pytest.param(1, id="once"), pytest.param(99, id="always")])
@pytest.mark.slow
def test_a_worker_that_dies(cluster, export, rasters, alone, tmp_path, monkeypatch, deaths):
    """Once: another one computes the block. Always: the block is told, left as 254, and made on resume."""
    variables = {"UNIGEOSEG_TEST_MARK": str(tmp_path / "mark"), "UNIGEOSEG_TEST_DEATHS": str(deaths)}

    class Actor(_MortalActor):
        def __init__(self, *args):
            os.environ.update(variables)
            super().__init__(*args)

    with monkeypatch.context() as patch:
        patch.setattr(workers, "_Actor", Actor)
        result = mapped(export, rasters, tmp_path / "out", workers=(2, 2))
    if deaths == 1:
        assert result["failed"] == 0 and bytes_of(tmp_path / "out") == alone
        assert (tmp_path / "mark").stat().st_size == 2
        return
    assert 2 <= (tmp_path / "mark").stat().st_size <= workers.TRIES + 1  # the last time alone
    failed = [json.loads(line) for line in (tmp_path / "out/a/failed.jsonl").read_text().splitlines()]
    assert {tuple(one["block"]): one["reason"][:20] for one in failed} == {
        (1, 1): "its worker ended eac",
        (2, 0): "RuntimeError: bad bl",
    }
    mapped(export, rasters, tmp_path / "out", workers=(1, 2), resume=True)
    assert bytes_of(tmp_path / "out") == alone


class _Frail:
    """Ends its process at part 1; knows how many parts it had."""

    def __init__(self, add):
        self._add = add

    def alone(self, sheet, number):
        if number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return workers.Outcome(sheet, number, None, str(number + self._add))


@pytest.mark.parametrize("most", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_what_was_left_is_tried_alone(cluster, most):
    """A part is told as failed for its own sake only, not for one that shared its actor."""
    keys = [(0, number) for number in range(3)]
    found = list(workers._one_at_a_time(_Frail, (10,), keys, most, 0.5, 0))
    assert sorted((one.number, one.reason[:16]) for one in found) == [
        (0, "10"),
        (1, "its worker ended"),
        (2, "12"),
    ]
