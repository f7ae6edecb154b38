"""Runs that are measured on the way: the best stays, is exported, ends the run, and outlives a resume."""

import json

import pytest
from safetensors.torch import load_file

from pipelines.runs.folder import RunFolder
from pipelines.runs.manifest import committed_steps
from pipelines.train.checkpoints.export import export_checkpoint
from tests.train_runs import finish, start

pytestmark = pytest.mark.integration
MEASURED = {
    "evaluation.every": 1,
    "evaluation.every_samples": 4,
    "evaluation.split": "train",
    "checkpoint.best_by": "val/gIoU",
    "checkpoint.export": "best",
    "checkpoint.keep": 1,
    "train.lr": 1e-2,
}


def _summary(run):
    return json.loads((run / "summary.json").read_text())


def _values(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    means = {r["step"] + 1: [v["gIoU"] for v in r["val"].values()] for r in rows if "val" in r}
    return {step: sum(found) / len(found) for step, found in means.items()}


def _same(one, other):
    one, other = (load_file(folder / "model.safetensors") for folder in (one, other))
    assert one.keys() == other.keys()
    assert all(one[name].equal(other[name]) for name in one)


def test_the_best_is_kept_and_exported(tmp_path, tiny_store):
    run = tmp_path / "run"
    finish(start("plain", run, tiny_store, processes=2, **MEASURED, **{"scale.workers": 2}))
    values, summary = _values(run), _summary(run)
    assert sorted(values) == list(range(1, 9))
    best = max(values, key=lambda step: (values[step], -step))
    assert summary["best"]["step"] == summary["exported"]["step"] == best
    assert summary["best"]["value"] == pytest.approx(values[best]) and summary["best"]["of"] == 8
    assert "best val/gIoU" in summary["exported"]["why"] and summary["stopped"] is None
    assert committed_steps(RunFolder(run)) == sorted({best, 8})
    export_checkpoint(f"{run}/{summary['best']['checkpoint']}", tmp_path / "again")
    _same(run / "export", tmp_path / "again")


def test_a_run_that_gets_no_better_ends_and_goes_on_with_more_patience(tmp_path, tiny_store):
    still = {**MEASURED, "train.lr": 1e-30}  # no weight moves: every evaluation is like the first
    run = tmp_path / "run"
    finish(start("plain", run, tiny_store, **still, **{"evaluation.patience": 2}))
    summary = _summary(run)
    assert (summary["steps"], summary["best"]["step"], summary["best"]["of"]) == (3, 1, 3)
    assert "of step 1 in 2 evaluations" in summary["stopped"]
    assert committed_steps(RunFolder(run)) == [1, 3]
    finish(start("plain", run, tiny_store, **still, **{"evaluation.patience": 4}, resume=True))
    summary = _summary(run)
    assert (summary["steps"], summary["best"]["step"], summary["best"]["of"]) == (5, 1, 5)
    assert committed_steps(RunFolder(run)) == [1, 5]
    assert len((run / "ledger.jsonl").read_text().splitlines()) == 5
