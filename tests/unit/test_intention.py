"""Dry runs: a short table in words without ``--json``, and the same document as ever with it."""

import json

import pytest
import yaml
from click.testing import CliRunner

from jobs.cli import cli
from tests.tiny_store import write_store
from tests.train_runs import tiny_values


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """The commands' words, on a tiny store."""
    folder = tmp_path_factory.mktemp("dry")
    store = write_store(folder / "store")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(tiny_values()))
    (folder / "space.yaml").write_text("metric: loss\nspace:\n  train.lr: {uniform: [1e-4, 1e-3]}\n")
    preset = ["--preset", str(folder / "tiny.yaml"), "--store", str(store)]
    return {
        "train": ["train", *preset, "--run", str(folder / "run")],
        "ablate": ["ablate", "--table", "6", *preset, "--seeds", "2", "--out", str(folder / "a")],
        "sweep": ["sweep", "--space", str(folder / "space.yaml"), *preset, "--trials", "7"],
        "build": ["data", "build", "--source", "synthetic", "--out", str(folder / "s")],
    }


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("train", ["8 of 4 images", "ZeRO stage 2", "interactive", "Nothing was started"]),
        ("ablate", ["8, 0 of them finished", "8 steps each", "model.lkm.slots=0", "to do"]),
        ("sweep", ["7, chosen by", "train.lr", "uniform(0.0001, 0.001)"]),
        ("build", ["2,000 (1,800 train, 200 val)", "63 blocks", "Nothing was written"]),
    ],
)
def test_a_dry_run_is_a_few_lines_in_words(words, name, parts):
    done = CliRunner().invoke(cli, [*words[name], "--dry-run"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    for part in parts:
        assert part in done.output, done.output
    assert len(done.output.splitlines()) < 25 and "{" not in done.output and "None" not in done.output
    assert max(map(len, done.output.splitlines())) <= 130


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("train", {"run", "store", "workers", "plan", "deepspeed"}),
        ("ablate", {"table", "title", "store", "out", "runs", "steps"}),
        ("sweep", {"space", "metric", "trials", "search", "scheduler", "store", "out"}),
        ("build", {"source", "images", "images_by_split", "blocks", "workers", "config_hash", "store"}),
    ],
)
def test_json_stays_whole(words, name, keys, capfd):
    done = CliRunner().invoke(cli, [*words[name], "--dry-run", "--json"], catch_exceptions=False)
    assert done.exit_code == 0 and keys <= json.loads(capfd.readouterr().out or done.stdout).keys()
