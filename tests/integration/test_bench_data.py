"""``bench data`` at small size: every installed loader runs on the same images; no times are judged."""

import json

import pytest
import yaml
from click.testing import CliRunner

from jobs.bench import bench
from tests.tiny_store import write_store

pytestmark = pytest.mark.integration


@pytest.mark.slow
def test_document(tmp_path):
    preset = tmp_path / "tiny.yaml"
    values = {
        "model": {"image_size": 64},
        "tokenizer": {"vocab_size": 300},
        "train": {"global_batch": 16, "steps": 20},
        "data": {"block_positions": 16, "actors": 1},
    }
    preset.write_text(yaml.safe_dump(values))
    store = str(write_store(tmp_path / "store"))
    words = ["data", store, "--preset", str(preset), "--samples", "256", "--repeats", "1", "--json"]
    result = json.loads(CliRunner().invoke(bench, words, catch_exceptions=False).stdout)
    names = [row["name"] for row in result["rows"]]
    ours = ["ours, threads", "ours, worker", "ours, actors", "ours, worker, two ranks"]
    for kind in ("jpeg", "png"):
        assert {f"{kind}: {name}" for name in ("bare", *ours, "torch DataLoader")} <= set(names)
        assert min(result["parts"][kind].values()) >= 0
    for row in result["rows"]:
        assert row.get("skipped", "why")
        assert row.get("images_per_s", 1) > 0
    assert result["ratios"]["jpeg: ours, worker / bare"] > 0
    assert result["ratios"]["png: ours, worker / best peer"] > 0
