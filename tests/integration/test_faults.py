"""What a run survives, with real processes: compared with an undisturbed run, bit by bit."""

import json
import os
import signal
import time
from pathlib import Path

import mlflow
import psutil
import pytest
from safetensors.torch import load_file

from pipelines.train.runs import list_runs
from tests.tiny_store import write_store
from tests.train_runs import finish, start

pytestmark = [pytest.mark.integration, pytest.mark.slow]
LONG = {"scale.workers": 2, "train.steps": 40, "checkpoint.every": 5, "model.tate.dropout": 0.1}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("data") / "store")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, store):
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    finish(start("plain", run, store, processes=2, **LONG))
    return run


def _rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _same(run: Path, other: Path) -> None:
    assert _rows(run / "ledger.jsonl") == _rows(other / "ledger.jsonl")
    losses = [[row["loss"] for row in _rows(r / "metrics.jsonl")] for r in (run, other)]
    assert losses[0] == losses[1]
    first, second = (load_file(str(r / "export/model.safetensors")) for r in (run, other))
    assert first.keys() == second.keys() and all((first[k] == second[k]).all() for k in first)


def _tracked_once(run: Path, status: str, steps: int) -> None:
    """One MLflow run with this status, whose step axis has no gap and no double."""
    client = mlflow.MlflowClient(f"sqlite:///{run.parent}/mlflow.db")
    (found,) = client.search_runs(["1"])
    assert found.info.status == status
    history = [m.step for m in client.get_metric_history(found.info.run_id, "train/loss")]
    assert history == list(range(steps))


def _workers(driver: int, run: Path) -> list[psutil.Process]:
    """The driver's training workers after its first checkpoint."""
    deadline = time.monotonic() + 280
    while time.monotonic() < deadline:
        if list((run / "checkpoints").glob("*/COMMITTED")):
            children = psutil.Process(driver).children(recursive=True)
            found = [c for c in children if "RayTrainWorker" in " ".join(c.cmdline())]
            if found:
                return found
        time.sleep(0.05)
    pytest.fail("no training worker within the time")


def test_all_workers_killed(undisturbed, tmp_path, store):
    run = tmp_path / "run"
    process = start("ray", run, store, **LONG)
    try:
        for worker in _workers(process.pid, run):
            os.kill(worker.pid, signal.SIGKILL)
        finish(process)
    finally:
        process.kill()
    _same(run, undisturbed)
    _tracked_once(run, "FINISHED", 40)


def test_driver_killed_then_resumed(undisturbed, tmp_path, store):
    run = tmp_path / "run"
    process = start("ray", run, store, **LONG)
    try:
        _workers(process.pid, run)
    finally:
        process.kill()
        process.wait()
    (row,) = list_runs(str(tmp_path))
    assert row.state == "killed" and row.steps == 40 and 5 <= row.checkpoint_step <= row.step < 40
    _tracked_once(run, "KILLED", row.step)
    finish(start("ray", run, store, **LONG, resume=True))
    _same(run, undisturbed)
    _tracked_once(run, "FINISHED", 40)
    (row,) = list_runs(str(tmp_path))
    assert (row.state, row.step, row.mlflow_closed) == ("finished", 40, True)


def test_a_stopped_worker_is_noticed(undisturbed, tmp_path, store):
    run = tmp_path / "run"
    process = start("ray", run, store, **LONG, **{"recovery.stall_seconds": 20})
    try:
        os.kill(_workers(process.pid, run)[-1].pid, signal.SIGSTOP)
        output = finish(process)
    finally:
        process.kill()
    assert "has done nothing for 20 s" in output
    (stacks,) = (run / "stacks").glob("*-rank-*.txt")
    assert "stopped" in stacks.read_text() and "pipelines/train/" in stacks.read_text()
    _same(run, undisturbed)


def test_sigterm_writes_a_checkpoint_first(undisturbed, tmp_path, store):
    run = tmp_path / "run"
    process = start("ray", run, store, **{**LONG, "checkpoint.every": 1000})
    deadline = time.monotonic() + 280
    while time.monotonic() < deadline and not (run / "metrics.jsonl").exists():
        time.sleep(0.05)
    process.terminate()
    finish(process, code=143)
    (row,) = list_runs(str(tmp_path))
    assert row.state == "killed" and row.checkpoint_step is not None
    finish(start("ray", run, store, **LONG, resume=True))
    _same(run, undisturbed)
