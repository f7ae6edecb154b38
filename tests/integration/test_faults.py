"""What a run survives when processes die, with real ones: compared with an undisturbed run, bit by bit."""

import json
import os
import signal

import pytest
from psutil import Process

from pipelines.runs.listing import list_runs
from tests.fault_runs import (
    LONG,
    assert_same_run,
    assert_tracked_once,
    committed,
    own_database,
    training_workers,
    wait_for,
    workers_after_checkpoint,
)
from tests.train_runs import finish, start

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def test_all_workers_killed_twice(undisturbed, tmp_path, tiny_store):
    """With one failure allowed: a new checkpoint between two failures starts the count anew."""
    run = tmp_path / "run"
    process = start("ray", run, tiny_store, **LONG, **{"checkpoint.max_failures": 1})
    try:
        first = workers_after_checkpoint(process, run)
        for worker in first:
            os.kill(worker.pid, signal.SIGKILL)
        wait_for("the end of the first workers", lambda: not any(w.is_running() for w in first), process)
        for worker in workers_after_checkpoint(process, run, step=committed(run)[-1] + 1):
            os.kill(worker.pid, signal.SIGKILL)
        output = finish(process)
    finally:
        process.kill()
    assert output.count("resuming from step") == 2
    assert_same_run(run, undisturbed)
    assert_tracked_once(own_database(run), "FINISHED", 40)


def test_workers_that_get_nowhere_are_given_up(tmp_path, tiny_store):
    """The same limit, without a checkpoint between the failures."""
    run = tmp_path / "run"
    options = {**LONG, "checkpoint.every": 1000, "train.steps": 5000, "checkpoint.max_failures": 0}
    process = start("ray", run, tiny_store, **options)
    try:
        wait_for("first steps", lambda: (run / "metrics.jsonl").exists(), process)
        os.kill(training_workers(Process(process.pid).children(recursive=True))[-1].pid, signal.SIGKILL)
        finish(process, code=1)
    finally:
        process.kill()
    (row,) = list_runs(str(tmp_path))
    assert (row.state, row.checkpoint_step, row.mlflow_closed) == ("failed", None, True)
    assert_tracked_once(own_database(run), "FAILED", row.step)


def test_driver_killed_then_resumed(undisturbed, tmp_path, tiny_store):
    run = tmp_path / "run"
    process = start("ray", run, tiny_store, **LONG)
    try:
        workers_after_checkpoint(process, run)
    finally:
        process.kill()
        process.wait()
    (row,) = list_runs(str(tmp_path))
    assert row.state == "killed" and row.steps == 40 and 5 <= row.checkpoint_step <= row.step < 40
    assert_tracked_once(own_database(run), "KILLED", row.step)
    finish(start("ray", run, tiny_store, **LONG, resume=True))
    assert_same_run(run, undisturbed)
    assert_tracked_once(own_database(run), "FINISHED", 40)
    (row,) = list_runs(str(tmp_path))
    assert (row.state, row.step, row.mlflow_closed) == ("finished", 40, True)


def test_a_stopped_worker_is_noticed(undisturbed, tmp_path, tiny_store):
    run = tmp_path / "run"
    process = start("ray", run, tiny_store, **LONG, **{"recovery.stall_seconds": 20})
    try:
        os.kill(workers_after_checkpoint(process, run)[-1].pid, signal.SIGSTOP)
        output = finish(process)
    finally:
        process.kill()
    assert "has done nothing for 20 s" in output
    (stacks,) = (run / "stacks").glob("*-rank-*.txt")
    (record,) = (run / "stacks").glob("*-collectives.json")
    entries = json.loads(record.read_text())["entries"]
    assert entries and {"gloo:all_reduce"} <= {entry["profiling_name"] for entry in entries}
    assert "stopped" in stacks.read_text() and "pipelines/train/" in stacks.read_text()
    assert_same_run(run, undisturbed)
    assert_tracked_once(own_database(run), "FINISHED", 40)


def test_sigterm_writes_a_checkpoint_first(undisturbed, tmp_path, tiny_store):
    run = tmp_path / "run"
    process = start("ray", run, tiny_store, **{**LONG, "checkpoint.every": 1000})
    try:
        wait_for("first steps", lambda: (run / "metrics.jsonl").exists(), process)
        process.terminate()
        finish(process, code=143)
    finally:
        process.kill()
    (row,) = list_runs(str(tmp_path))
    assert row.state == "killed" and row.checkpoint_step is not None
    finish(start("ray", run, tiny_store, **LONG, resume=True))
    assert_same_run(run, undisturbed)
    assert_tracked_once(own_database(run), "FINISHED", 40)
