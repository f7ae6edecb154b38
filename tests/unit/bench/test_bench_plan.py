"""``bench plan`` at small size: the document's shape and what it counts, not its times."""

import json

import pytest
from click.testing import CliRunner

from jobs.bench import bench, parse_count
from unigeoseg.errors import UserError


def test_document():
    words = ["plan", "--samples", "2k,20k", "--positions", "4096", "--json"]
    result = json.loads(CliRunner().invoke(bench, words, catch_exceptions=False).stdout)
    assert set(result) == {"rows", "ratios", "machine"}
    assert [row["samples"] for row in result["rows"]] == [2000, 20_000]
    for row in result["rows"]:
        assert row["table_bytes_per_sample"] == 4
        assert row["s_per_million"] > 0
    assert "20000 samples: late open / first open" in result["ratios"]
    assert result["machine"]["cores"] >= 1


def test_counts():
    assert [parse_count(t) for t in ("1.15M", "1B", "20k", "5000")] == [1_150_000, 10**9, 20_000, 5000]
    for text in ("many", "", "7"):
        with pytest.raises(UserError, match="--samples"):
            parse_count(text)
