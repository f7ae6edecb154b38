"""Sweeps and ablations through the public command: a killed driver, a trial that fails, what MLflow shows."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest
import yaml

from tests.train_runs import ROOT, tiny_values

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1800)]
PRESET = tiny_values(
    **{
        "build": {
            "tile": {"size": 96, "stride": 96},
            "split": {"val": 0.2},
            "workers": 1,
            "source": {"scenes": 30, "size": 96},
        },
        "evaluation": {"batch": 8, "workers": 1, "max_samples": 6},
        "train.steps": 4,
        "train.grad_clip": 0,
        "tokenizer.vocab_size": 512,
    }
)


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {k: v for k, v in os.environ.items() if k not in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS")}
    return subprocess.Popen(
        [sys.executable, "-m", "jobs.cli", *arguments],
        cwd=folder,
        env={**environment, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def answer(folder: Path, *arguments: str, code: int = 0) -> dict:
    process = start(folder, *arguments)
    out, err = process.communicate(timeout=900)
    assert process.returncode == code, err[-3000:]
    return json.loads(out) if code == 0 else {"error": err}


def kill_when(process: subprocess.Popen[str], ready) -> None:
    """SIGKILL to a driver as soon as ``ready()``."""
    deadline = time.monotonic() + 600
    while not ready():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def evaluated(summaries) -> bool:
    """Whether a run is at its end: its summary is written before the evaluation, and again after."""
    return any(json.loads(path.read_text() or "{}").get("tasks") for path in summaries if path.exists())


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("experiments")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(PRESET))
    answer(
        folder,
        *("data", "build", "--source", "synthetic", "--preset", "tiny.yaml", "--out", "store", "--json"),
    )
    return folder


def children(folder: Path, experiment: str, parent_folder: str) -> tuple:
    """The MLflow parent of an experiment's folder and its children by name."""
    client = mlflow.MlflowClient(f"sqlite:///{folder}/runs/mlflow.db")
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    saved = json.loads((folder / parent_folder / "mlflow.json").read_text())
    parent = next(run for run in found if run.info.run_id == saved["run_id"])
    below = [run for run in found if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    return parent, {run.info.run_name: run for run in below}


def test_an_ablation_goes_on_after_a_kill_and_a_comparison_finds_its_runs(place):
    command = ("ablate", "--table", "9", "--preset", "tiny.yaml", "--store", "store", "--seeds", "1")
    command += ("--concurrent", "1", "--out", "runs/nine", "--json")
    summary = place / "runs/nine/average-seed0/summary.json"
    kill_when(start(place, *command), lambda: evaluated([summary]))
    before = summary.stat().st_mtime_ns
    table = answer(place, *command)
    assert summary.stat().st_mtime_ns == before, "a finished run was run again"
    assert table["unfinished"] == [] and table["failed"] == {}
    measured = {row["name"]: row["tasks"]["reasoning"]["mean"] for row in table["rows"]}
    for name, mean in measured.items():
        tasks = json.loads((place / f"runs/nine/{name}-seed0/summary.json").read_text())["tasks"]
        assert mean == pytest.approx(100 * tasks["reasoning"]["gIoU"], abs=1e-4)
    assert table["rows"][1]["tasks"]["reasoning"]["paper_delta"] == 0.31
    parent, runs = children(place, "ablation", "runs/nine")
    assert set(runs) == {"average-seed0", "PTS-seed0", "adaptive-seed0"}
    assert {run.info.status for run in (parent, *runs.values())} == {"FINISHED"}

    found = answer(place, "compare", "--experiment", "ablation", "--best", "val/reasoning/gIoU", "--json")
    assert {run["name"] for run in found["runs"]} == set(runs)
    assert set(found["differing"]) == {"pts.schedule"}
    best = measured[found["best"]["run"].removesuffix("-seed0")]
    assert best == max(measured.values())  # schedules that differ by name alone may end alike
    assert found["best"]["checkpoint"] == "step-00000004"
    first = runs["PTS-seed0"].info.run_id
    by_id = answer(place, "compare", first, "runs/nine/average-seed0", "--out", "cmp", "--json")
    assert [run["name"] for run in by_id["runs"]] == ["PTS-seed0", "average-seed0"]
    assert all(Path(place / path).stat().st_size for path in by_id["files"])

    version = answer(place, "register", "runs/nine/PTS-seed0", "--alias", "best", "--json")
    assert (version["uri"], version["run_id"]) == ("models:/unigeoseg@best", first)
    scored = answer(place, "evaluate", "--model", version["uri"], "--data", "store", "--json")
    own = answer(place, "evaluate", "--model", "runs/nine/PTS-seed0", "--data", "store", "--json")
    assert scored["tasks"] == own["tasks"]
    other = answer(place, *command, "--set", "train.steps=5", code=2)["error"]
    assert "train.steps: 4 -> 5" in other and "Traceback" not in other


def test_a_sweep_survives_a_failing_trial_and_a_killed_driver(place):
    space = {
        "metric": "loss",
        "mode": "min",
        "space": {"train.lr": {"grid_search": [1e-3, 1e30, 2e-3]}},
    }
    (place / "space.yaml").write_text(yaml.safe_dump(space))
    command = ("sweep", "--space", "space.yaml", "--preset", "tiny.yaml", "--store", "store")
    command += (
        "--search",
        "grid",
        "--scheduler",
        "fifo",
        "--concurrent",
        "1",
        "--out",
        "runs/sweep",
        "--json",
    )
    folder = place / "runs/sweep"
    kill_when(start(place, *command), lambda: evaluated(folder.glob("trial-*/summary.json")))
    (finished,) = folder.glob("trial-*/summary.json")
    before = finished.stat().st_mtime_ns
    refused = answer(place, *command, code=2)["error"]
    assert "add --resume" in refused
    result = answer(place, *command, "--resume")
    assert finished.stat().st_mtime_ns == before, "a finished trial was run again"
    states = {trial["values"]["train.lr"]: trial for trial in result["trials"]}
    assert {lr: trial["state"] for lr, trial in states.items()} == {
        1e-3: "finished",
        1e30: "failed",
        2e-3: "finished",
    }
    assert "is not finite" in states[1e30]["error"]
    parent, runs = children(place, "sweep", "runs/sweep")
    assert runs[states[1e30]["name"]].info.status == "FAILED"
    assert {runs[states[lr]["name"]].info.status for lr in (1e-3, 2e-3)} == {"FINISHED"}
    assert parent.info.status == "FINISHED" and len(runs) == 3
    best = result["best"]["values"]["train.lr"]
    summary = answer(place, *("train", "--preset", "runs/sweep/best.yaml", "--store", "store"),
                     "--run", "runs/again", "--json")  # fmt: skip
    assert summary["steps"] == 4
    assert yaml.safe_load((place / "runs/again/config.yaml").read_text())["train"]["lr"] == best
    losses = [
        [json.loads(line)["loss"] for line in (place / run / "metrics.jsonl").read_text().splitlines()]
        for run in ("runs/again", f"runs/sweep/{result['best']['name']}")
    ]
    assert losses[0] == losses[1]
