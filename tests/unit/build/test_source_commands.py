import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from jobs.cli import cli
from pipelines.build import BuildConfig, build_store
from pipelines.build.sources import registry
from pipelines.build.sources.base import SourceImage, SourceItem, Triplet
from unigeoseg.errors import UserError


def run(*arguments):
    return CliRunner().invoke(cli, list(map(str, arguments)))


def test_the_list_names_every_source_with_its_licence():
    rows = {row["name"]: row for row in json.loads(run("data", "sources", "--json").stdout)["sources"]}
    assert len(rows) >= 15 and {"synthetic", "dubai", "loveda", "dota", "fair1m"} <= set(rows)
    assert all(row["licence"] and row["expects"] and row["checked"] for row in rows.values())
    text = run("data", "sources").output
    assert all(name in text for name in rows)


def test_a_page_shows_the_class_table():
    page = json.loads(run("data", "sources", "loveda", "--json").stdout)
    assert {(row["value"], row["category_id"]) for row in page["classes"]} == {
        (0, None), (1, None), (2, 25), (3, 12), (4, 10), (5, 11), (6, 9), (7, 7),
    }  # fmt: skip
    text = run("data", "sources", "loveda").output
    assert "25 Building" in text and "images_png" in text and "CC-BY-NC-SA" in text
    for name in ("fair1m", "synthetic"):
        assert run("data", "sources", name).exit_code == 0
    assert isinstance(run("data", "sources", "lovda").exception, UserError)


class _Ready:
    """A benchmark: two instructions on one image, one of which means nothing there."""

    name, licence = "ready", "test"

    def items(self):
        return [SourceItem(f"i{n}", f"s{n}", f"s{n}", {}, "test" if n else "train") for n in range(2)]

    def read(self, item):
        mask = np.zeros((20, 30), np.uint8)
        mask[3:9, 4:8] = 1
        return SourceImage(
            np.zeros((20, 30, 3), np.uint8),
            np.zeros((20, 30), np.int32),
            triplets=[
                Triplet("referring", "object", "the ship", mask, category_id=79),
                Triplet("reasoning", "none", "where is the volcano?", mask * 0, "There is none."),
            ],
        )


def test_ready_triplets_enter_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setitem(registry.OPENERS, "ready", lambda root, config: _Ready())
    config = BuildConfig(workers=0, split={"own": True})
    result = build_store("ready", None, tmp_path / "s", config, progress=False, preview=False)
    assert result["samples"] == {"interactive": 0, "referring": 2, "reasoning": 2}
    rows = pq.read_table(tmp_path / "s" / "index.parquet").to_pylist()
    assert {(r["sample_id"], r["split"], r["mask_area"], r["category"]) for r in rows} == {
        ("ready/i0/referring/0", "train", 24, "Ship"),
        ("ready/i0/reasoning/0", "train", 0, ""),
        ("ready/i1/referring/0", "test", 24, "Ship"),
        ("ready/i1/reasoning/0", "test", 0, ""),
    }


@pytest.mark.parametrize("source", ["synthetic", "dota"])
def test_bench_build_times_every_step(source, tmp_path):
    from tests.unit.build.test_boxes import dota

    dota(tmp_path)
    root = ["--root", tmp_path] if source == "dota" else []
    done = run("bench", "build", "--source", source, *root, "--tiles", 3, "--repeats", 1, "--json")
    result = json.loads(done.stdout)
    names = [row["name"] for row in result["rows"]]
    assert names == [
        "read and cut", "components", "rules", "rules, masks, text", "masks (RLE)", "encode (PNG)", "write",
    ]  # fmt: skip
    assert all(row["tiles_per_second"] > 0 for row in result["rows"]) and result["slowest"] in names
