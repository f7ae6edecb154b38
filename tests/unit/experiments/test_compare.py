"""Runs side by side: what differs, which is best and by which checkpoint, from figures known beforehand."""

import socket

import pytest

from pipelines.experiments.compare import compare_markdown, compare_runs, write_comparison
from pipelines.experiments.records import RunRecord, load_record
from pipelines.tracking.registry import fetch_model
from unigeoseg.errors import UserError

METRIC = "val/reasoning/gIoU"


@pytest.fixture
def records():
    steps = ["step-00000010", "step-00000020", "step-00000030"]
    one = RunRecord(
        "one",
        "runs/one",
        "FINISHED",
        {"train.lr": "0.1", "seed": "1", "tracking.parent": "a"},
        {METRIC: [(9, 0.3), (19, 0.6), (29, 0.5)], "train/loss": [(0, 4.0), (29, 2.0)]},
        {METRIC: 0.5, "train/loss": 2.0},
        steps,
    )
    two = RunRecord(
        "two",
        "runs/two",
        "FINISHED",
        {"train.lr": "0.2", "seed": "1", "tracking.parent": "b"},
        {METRIC: [(9, 0.4)], "train/loss": [(0, 3.0), (29, 2.5)]},
        {METRIC: 0.55, "train/loss": 2.5},
        steps,
    )
    return [one, two]


def test_settings_that_differ_and_metrics(records):
    result = compare_runs(records)
    assert result["differing"] == {"train.lr": ["0.1", "0.2"]}
    assert result["metrics"][METRIC] == {"final": [0.5, 0.55], "best": [0.6, 0.55]}
    assert result["metrics"]["train/loss"] == {"final": [2.0, 2.5], "best": [2.0, 2.5]}
    assert result["best"] is None
    assert "| val/reasoning/gIoU | 0.5000 (0.6000) | 0.5500 |" in compare_markdown(result)


def test_the_best_run_is_judged_by_its_end_and_names_a_checkpoint(records):
    best = compare_runs(records, METRIC)["best"]
    assert (best["run"], best["final"], best["best_value"], best["checkpoint"]) == (
        "two",
        0.55,
        0.55,
        "step-00000030",
    )
    best = compare_runs(records[:1], METRIC)["best"]  # its best value came after step 19
    assert (best["best_step"], best["best_value"], best["checkpoint"]) == (19, 0.6, "step-00000020")
    assert compare_runs(records, "train/loss")["best"]["run"] == "one"  # the smaller loss


def test_an_unknown_metric_names_those_that_there_are(records):
    with pytest.raises(UserError, match=f"--best val/reasoning/giou: no run has it; .*{METRIC}"):
        compare_runs(records, "val/reasoning/giou")
    with pytest.raises(UserError, match=f"--best Dice: no run has it; .*{METRIC}"):
        compare_runs(records, "Dice")


def test_three_files(records, tmp_path):
    paths = write_comparison(compare_runs(records), records, tmp_path / "out")
    assert [p.name for p in paths] == ["compare.json", "compare.md", "compare.png"]
    assert paths[2].read_bytes().startswith(b"\x89PNG")


def test_nowhere_to_look(tmp_path):
    with pytest.raises(UserError, match="no MLflow database at sqlite"):
        load_record("nothing", f"sqlite:///{tmp_path}/mlflow.db", tmp_path)


def test_a_server_that_is_down(tmp_path):
    with socket.socket() as nobody:  # bound, and no one listens
        nobody.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        for look in (
            lambda: load_record("nothing", uri, tmp_path),
            lambda: fetch_model("models:/unigeoseg@best", str(tmp_path), uri),
        ):
            with pytest.raises(UserError, match=f"MLflow at {uri} does not answer .* --tracking-uri"):
                look()
