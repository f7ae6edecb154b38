"""Going on with a build asks storage little for each block, and for many blocks at a time."""

import pytest

from pipelines.build import BuildConfig, build, build_store, manifest
from pipelines.build.manifest import read_block, read_stamps, stamp
from pipelines.build.sources.base import SourceItem
from pipelines.storage.ahead import ahead
from tests.counting import counted
from tests.unit.build.test_restart import contents


class Stop(Exception):
    """The build was stopped."""


def stopped(*_):
    raise Stop


def run(out, scenes):
    config = BuildConfig(workers=0, block_images=1, source={"scenes": scenes, "size": 128})
    build_store("synthetic", None, out, config, progress=False, preview=False)


def requests_to_go_on(out, scenes, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(build._Build, "_balance", stopped)
        with pytest.raises(Stop):
            run(out, scenes)
        with counted(monkeypatch) as requests, pytest.raises(Stop):
            run(out, scenes)
    return requests


def test_going_on_reads_each_report_at_most_twice_and_side_by_side(tmp_path, monkeypatch):
    few, many = (requests_to_go_on(tmp_path / str(n), n, monkeypatch) for n in (4, 24))
    assert many.of() - few.of() <= 2 * (24 - 4)
    assert many.of("items-", method="cat_file") == 1
    assert 1 < many.most <= 32
    store = str(tmp_path / "24")
    assert read_stamps(store, range(24)) == {n: stamp(read_block(store, n)) for n in range(24)}


def test_the_store_is_the_same_whether_it_was_stopped_or_not(tmp_path, monkeypatch):
    requests_to_go_on(tmp_path / "stopped", 6, monkeypatch)
    run(tmp_path / "stopped", 6)
    run(tmp_path / "whole", 6)
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")


def test_results_come_in_order_and_few_wait():
    begun = []

    def work(number):
        begun.append(number)
        return number * number

    found = ahead(work, iter(range(1000)), threads=4)
    assert next(found) == 0 and len(begun) <= 9
    assert list(found) == [n * n for n in range(1, 1000)]


def test_an_error_comes_in_its_place():
    found = ahead(lambda n: 6 // (3 - n), range(8), threads=2)
    assert [next(found) for _ in range(3)] == [2, 3, 6]
    with pytest.raises(ZeroDivisionError):
        next(found)


@pytest.mark.parametrize(
    ("label", "files", "sizes"),
    [
        (None, "own", [2, 2, 2]),  # ready samples name files of their own, and no label
        ("all.shp", "shared", [3, 3]),  # a shapefile's parts count once, as it does
        ("own", "own", [1, 1, 1, 1, 1, 1]),
    ],
)
def test_a_block_holds_so_many_bytes_of_files(tmp_path, monkeypatch, label, files, sizes):
    monkeypatch.setattr(manifest, "_BLOCK_BYTES", 900)

    def file(name):
        (tmp_path / name).write_bytes(bytes(100 if name.startswith("picture") else 300))
        return str(tmp_path / name)

    items = []
    for n in range(6):
        detail = {"image": file(f"picture{n}")}
        detail["files"] = [file(f"more{n}" if files == "own" else "all.dbf")]
        if label:
            detail["label"] = file(f"label{n}" if label == "own" else label)
        items.append(SourceItem(str(n), str(n), str(n), detail))
    assert [len(block) for block in manifest._blocks(items, most=4)] == sizes
