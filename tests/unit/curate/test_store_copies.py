"""Exports and merges read shards in large pieces, go on after a stop, and give the bytes they always gave."""

import hashlib

import pytest

from pipelines.curate import export, merge
from pipelines.curate.export import FORMS, export_store
from pipelines.curate.export_target import Target
from pipelines.curate.merge import merge_stores
from pipelines.store import scan
from pipelines.store.fetch import RangeFetcher
from pipelines.store.scan import fragments, open_all_splits, places
from tests.built_store import synthetic_store
from tests.unit.curate.plain_export import plain_export
from unigeoseg.errors import UserError


def bytes_of(folder):
    files = [f for f in sorted(folder.rglob("*")) if f.is_file()]
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Stores of several shards: the second has the first one's ids, and more; the third has two splits."""
    folder = tmp_path_factory.mktemp("stores")
    kinds = (("a", 8, 0.0), ("b", 10, 0.0), ("c", 8, 0.4))
    return tuple(
        synthetic_store(folder / name, scenes, 128, shard_bytes=60_000, split={"val": val})
        for name, scenes, val in kinds
    )


@pytest.fixture
def asked(monkeypatch):
    """The ranges that are asked for."""
    found = []
    fetch = RangeFetcher.fetch

    def counting(self, ranges, stats):
        found.extend(ranges)
        return fetch(self, ranges, stats)

    monkeypatch.setattr(RangeFetcher, "fetch", counting)
    return found


def test_images_side_by_side_come_with_one_request(stores, asked):
    index = open_all_splits(str(stores[0]))
    found = places(index)
    shards = {p.shard: (stores[0] / p.shard).read_bytes() for p in found}
    together = list(fragments(index.store, found))
    assert len(asked) == len(shards) < len(found)
    assert together == [(p, shards[p.shard][p.offset : p.offset + p.nbytes]) for p in found]
    asked.clear()
    some = found[1:2], found[3:4], found[4:5]
    wanted = [place for run in some for place in run]
    assert [p for p, _ in fragments(index.store, wanted)] == wanted
    assert len(asked) == 1 + len({found[3].shard, found[4].shard})
    asked.clear()
    assert list(fragments(index.store, found, window=1)) == together and len(asked) == len(found)


@pytest.mark.parametrize("form", FORMS)
def test_an_export_is_what_a_plain_loop_writes(stores, tmp_path, monkeypatch, form):
    monkeypatch.setattr(export, "_SHARD_BYTES", 40_000)
    result = export_store(str(stores[2]), form, str(tmp_path / "out"), progress=False)
    samples = plain_export(stores[2], form, tmp_path / "plain", 40_000)
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "plain")
    assert result["files"] == len(bytes_of(tmp_path / "plain")) and result["samples"] == samples


@pytest.mark.parametrize("form", FORMS)
def test_a_stopped_export_goes_on_after_its_last_shard(stores, tmp_path, monkeypatch, asked, form):
    monkeypatch.setattr(export, "_SHARD_BYTES", 40_000)
    monkeypatch.setattr(scan, "WINDOW", 1)
    whole = export_store(str(stores[2]), form, str(tmp_path / "whole"), progress=False)
    full = len(asked)
    kept, keep = [], Target.keep

    def dying(self, name, note):
        keep(self, name, note)
        kept.append(name)
        if note.get("after", (0,))[0] >= 2 or ("images" in note and len(kept) == 3):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Target, "keep", dying)
        export_store(str(stores[2]), form, str(tmp_path / "s"), progress=False)
    asked.clear()
    other = "coco" if form != "coco" else "webdataset"
    with pytest.raises(UserError, match="unfinished export of another"):
        export_store(str(stores[2]), other, str(tmp_path / "s"), progress=False)
    again = export_store(str(stores[2]), form, str(tmp_path / "s"), progress=False)
    assert len(asked) < full
    assert bytes_of(tmp_path / "s") == bytes_of(tmp_path / "whole")
    assert again | {"out": ""} == whole | {"out": ""}
    with pytest.raises(UserError, match="holds files already"):
        export_store(str(stores[2]), form, str(tmp_path / "s"), progress=False)


def merged(stores, out):
    names = [str(store) for store in stores[:2]]
    return merge_stores(names, str(out), "first", 60_000, progress=False, preview=False)


def test_a_stopped_merge_goes_on_after_its_last_shard(stores, tmp_path, monkeypatch, asked):
    whole = merged(stores, tmp_path / "whole")
    assert whole["duplicates"] > 0 and whole["shards"] > 4
    full = sum(nbytes for _, _, nbytes in asked)
    keep, monkey = merge.keep_shard, []
    for stop in range(1, 5):  # each run finishes one shard more than the one before it
        kept = []

        def dying(*arguments, kept=kept):
            if kept:
                raise KeyboardInterrupt
            keep(*arguments)
            kept.append(arguments)

        with monkeypatch.context() as patch:
            patch.setattr(merge, "keep_shard", dying)
            try:
                merged(stores, tmp_path / "s")
            except KeyboardInterrupt:
                monkey.append(stop)
    assert len(monkey) == 4
    asked.clear()
    again = merged(stores, tmp_path / "s")
    assert sum(nbytes for _, _, nbytes in asked) < full
    assert bytes_of(tmp_path / "s") == bytes_of(tmp_path / "whole")
    assert again | {"store": ""} == whole | {"store": ""}
