"""The whole path on an S3 endpoint: build, train on two workers, kill one, go on, evaluate."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import psutil
import pytest
import yaml

from cluster.s3 import LocalS3
from tests.fault_runs import assert_same_run, assert_tracked_once, own_database
from tests.train_runs import empty_database
from tests.warm import run_warm, start_warm

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
STEPS, EVERY = 24, 4
TINY = {
    "extends": "quickstart",
    "build": {"source": {"scenes": 48}, "split": {"val": 0.2}, "workers": 0},
    "model": {
        "vision": {"embed_dim": 16, "depths": [1, 1, 1, 1], "heads": [1, 2, 4, 8]},
        "language": {
            "hidden_size": 32,
            "layers": 1,
            "heads": 2,
            "intermediate_size": 64,
            "max_positions": 384,
        },
        "decoder": {
            "hidden": 32,
            "heads": 2,
            "pixel_layers": 1,
            "pixel_ffn": 32,
            "mask_layers": 1,
            "mask_ffn": 32,
            "query_width": 32,
        },
        "loss": {"points": 128},
    },
    "tokenizer": {"vocab_size": 512, "max_length": 384},
    "data": {"instructions_per_image": 2},
    "train": {"steps": STEPS, "global_batch": 4, "log_every": 1},
    "checkpoint": {"every": EVERY, "keep": 2},
    "evaluation": {"batch": 8, "workers": 1, "max_samples": 12},
    "scale": {"workers": 2},
}


@pytest.fixture(scope="module")
def s3():
    with LocalS3() as server:
        yield server


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    path = tmp_path_factory.mktemp("preset") / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    return path


def finished(s3, *arguments, ranks=1):
    """The JSON of a command that succeeds."""
    where = {"environment": os.environ | s3.environment, "ranks": ranks}
    done = run_warm("jobs.cli", *arguments, "--json", **where)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def train_workers(process):
    """Ray's training worker processes below ``process``."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if "TrainWorker" in " ".join(child.cmdline()):
                found.append(child)
        except psutil.Error:
            continue
    return found


def kill_one_worker_after_a_checkpoint(process, run):
    """SIGKILL; returns the number of ledger rows at that moment, or None if the run ended first."""
    ledger = run / "ledger.jsonl"
    while process.poll() is None:
        if any((run / "checkpoints").glob("*/COMMITTED")):
            rows = len(ledger.read_text().splitlines())
            workers = train_workers(process)
            if workers and rows > EVERY:
                os.kill(workers[-1].pid, signal.SIGKILL)
                return rows
        time.sleep(0.05)
    return None


@pytest.fixture(scope="module")
def store(s3, preset):
    url = f"{s3.url}/stores/tiny"
    built = finished(s3, "data", "build", "--source", "synthetic", "--preset", preset, "--out", url)
    assert all(built["samples"][task] > 0 for task in ("interactive", "referring", "reasoning"))
    return url


@pytest.fixture(scope="module")
def killed_run(s3, preset, store, tmp_path_factory):
    """A run that lost a worker: its folder, what it printed, and the ledger's length at the kill."""
    run = tmp_path_factory.mktemp("runs") / "killed"
    shutil.copy(empty_database(), run.parent / "mlflow.db")
    words = ("train", "--preset", preset, "--store", store, "--run", run, "--json")
    process = start_warm("jobs.cli", *words, environment=os.environ | s3.environment)
    try:
        rows = kill_one_worker_after_a_checkpoint(process, run)
        printed, log = process.communicate()
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(30)
    assert rows is not None and process.returncode == 0, log[-3000:]
    assert "resuming from step" in log
    return run, json.loads(printed), rows


def test_the_run_goes_on_and_finishes(killed_run):
    run, summary, rows_at_kill = killed_run
    assert rows_at_kill < STEPS
    assert summary == json.loads((run / "summary.json").read_text())
    assert (summary["steps"], summary["world_size"], summary["zero_stage"]) == (STEPS, 2, 2)
    assert set(summary["tasks"]) == {"interactive", "referring", "reasoning"}
    newest = max((run / "checkpoints").glob("*/COMMITTED")).parent
    state = json.loads((newest / "state.json").read_text())
    assert (state["step"], state["world_size"]) == (STEPS, 2)
    assert Path(summary["checkpoint"]).name == newest.name
    for name in ("config.yaml", "report.html", "metrics.jsonl", "export/model.safetensors"):
        assert (run / name).stat().st_size > 0


def test_a_killed_worker_costs_nothing(s3, preset, store, killed_run, tmp_path):
    """The run is that of two ranks without Ray which nothing happened to."""
    run, _, _ = killed_run
    undisturbed = tmp_path / "undisturbed"
    shutil.copy(empty_database(), tmp_path / "mlflow.db")
    words = ("--preset", preset, "--store", store, "--run", undisturbed, "--no-evaluate", "--plain")
    finished(s3, "train", *words, ranks=2)
    assert_same_run(run, undisturbed)
    assert_tracked_once(own_database(run), "FINISHED", STEPS)


def test_every_step_saw_the_planned_samples_exactly_once(s3, preset, store, killed_run):
    run, summary, _ = killed_run
    rows = [json.loads(line) for line in (run / "ledger.jsonl").read_text().splitlines()]
    arguments = ("--preset", preset, "--steps", f"0:{STEPS}", "--world-size")
    planned = finished(s3, "data", "trace", store, *arguments, 1)
    assert [row["step"] for row in rows] == list(range(STEPS))
    for row, step in zip(rows, planned["steps"], strict=True):
        assert row["sample_ids"] == step["ranks"][0], f"step {row['step']}"
        assert row["position"] == step["position"]
    assert summary["samples_seen"] == sum(len(row["sample_ids"]) for row in rows)
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))


def test_a_finished_run_is_evaluated_from_s3(s3, store, killed_run, tmp_path):
    run, summary, _ = killed_run
    result = finished(s3, "evaluate", "--model", run / "export", "--data", store, "--out", tmp_path)
    assert json.loads((tmp_path / "evaluation.json").read_text()) == result
    for task, values in result["tasks"].items():
        assert values["n"] >= summary["tasks"][task]["n"]
        assert 0 <= values["gIoU"] <= 1
    assert (tmp_path / "per_sample.parquet").stat().st_size > 0
