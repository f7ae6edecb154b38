"""A run that draws, cuts and changes its samples in every way: resumed or on two ranks, it is the same."""

import json
import shutil

import pytest

from pipelines.runs.manifest import checkpoint_name
from tests.train_runs import finish, start

pytestmark = pytest.mark.integration
EVERYTHING = {
    "data.instructions_per_image": 2,
    "data.recut": True,
    "data.source_shares": {"tiny": 1.0},
    "data.filters": [{"max_area": 0.0618}],
    "data.augment": {
        "brightness": 0.3,
        "contrast": 0.3,
        "saturation": 0.3,
        "blur": 1.0,
        "scale": [0.8, 1.5],
        "flips": True,
        "turns": True,
    },
    "pts.warmup": [{"until": 0.4, "shares": {"interactive": 1.0}, "filters": [{"max_area": 0.055}]}],
    "evaluation.every": 2,
    "evaluation.every_samples": 4,
    "evaluation.split": "train",
    "checkpoint.best_by": "val/cIoU",
}


def _rows(run, name):
    return [json.loads(line) for line in (run / name).read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny_store):
    run = tmp_path_factory.mktemp("whole") / "run"
    finish(start("plain", run, tiny_store, **EVERYTHING))
    return run


def test_what_is_replayed_is_what_was_there(whole, tiny_store, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    shutil.rmtree(run / checkpoint_name(8))
    finish(start("plain", run, tiny_store, resume=True, **EVERYTHING))
    before, after = _rows(whole, "metrics.jsonl"), _rows(run, "metrics.jsonl")
    assert [row["loss"] for row in after] == [row["loss"] for row in before] and len(after) == 8
    assert [row.get("val") for row in after] == [row.get("val") for row in before]
    assert _rows(run, "ledger.jsonl") == _rows(whole, "ledger.jsonl")
    best = [json.loads((path / "summary.json").read_text())["best"] for path in (whole, run)]
    assert best[0] == best[1]


@pytest.mark.slow
def test_two_ranks_see_the_same(whole, tiny_store, tmp_path):
    run = tmp_path / "run"
    finish(start("plain", run, tiny_store, processes=2, **EVERYTHING, **{"scale.workers": 2}))
    assert _rows(run, "ledger.jsonl") == _rows(whole, "ledger.jsonl")
    losses = [[row["loss"] for row in _rows(path, "metrics.jsonl")] for path in (whole, run)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
