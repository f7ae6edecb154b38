"""``bench scale`` at small size: the index it makes, and the document's shape, not its times."""

import json

import pytest
from click.testing import CliRunner

from jobs.bench import bench
from pipelines.bench.scale import PARTS, write_index
from pipelines.curate.lint import check_index
from pipelines.store.index import StoreIndex
from pipelines.store.scan import open_all_splits, places
from unigeoseg.errors import UserError


@pytest.mark.parametrize("rows", [1000, 30_001])
def test_the_index_is_one_that_a_store_may_have(tmp_path, rows):
    write_index(str(tmp_path / "s"), rows)
    index = open_all_splits(str(tmp_path / "s"))
    assert len(index) == rows and check_index(index) == []
    found = list(places(index))
    assert len(found) == len({(p.shard, p.offset) for p in found}) == -(-rows // 3)
    assert all(share > 0 for share in index.natural_shares())
    held = StoreIndex.open(str(tmp_path / "s"), "val")
    assert 0.05 < len(held) / rows < 0.15
    assert set(held.table["shard"].to_pylist()).isdisjoint(
        StoreIndex.open(str(tmp_path / "s")).table["shard"].to_pylist()
    )


def test_document():
    result = CliRunner().invoke(bench, ["scale", "--rows", "9k,3k", "--json"], catch_exceptions=False)
    document = json.loads(result.stdout)
    assert set(document) == {"rows", "ratios", "machine"}
    assert [row["rows"] for row in document["rows"]] == [3000, 9000]
    for row in document["rows"]:
        assert all(row[f"{part}_s"] > 0 and row[f"{part}_mib"] >= 0 for part in PARTS)
    assert "lint: seconds a row, largest / smallest" in document["ratios"]


def test_more_rows_than_are_made_are_refused():
    found = CliRunner().invoke(bench, ["scale", "--rows", "30M"])
    assert isinstance(found.exception, UserError) and "20,000,000" in str(found.exception)
