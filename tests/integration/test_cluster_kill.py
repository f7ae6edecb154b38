"""An ``up`` that is killed while it starts: nothing is left that the next command does not find."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from cluster.local.processes import marked_processes

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


def _up(folder):
    """``cluster up`` that has started its first process (MLflow, whose start takes seconds)."""
    command = [sys.executable, "-m", "jobs.cli", "cluster", "up", "--no-s3", "--database", "sqlite"]
    process = subprocess.Popen(
        [*command, "--state", folder, "--data", folder.parent / "data"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline and process.poll() is None:
        if (folder / "state.json").exists():
            state = json.loads((folder / "state.json").read_text() or "{}")
            if state and marked_processes(state["id"]):
                return process, state
        time.sleep(0.05)
    process.kill()
    raise AssertionError(process.communicate()[1])


def _cluster(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "jobs.cli", "cluster", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP])
def test_nothing_is_left_of_an_up_that_was_cut_short(tmp_path, number):
    folder = tmp_path / "runs"
    (folder / "first").mkdir(parents=True)
    (folder / "first/metrics.jsonl").write_text("x")
    process, state = _up(folder)
    second = _cluster("up", "--state", folder)
    assert second.returncode == 2 and "at work" in second.stderr, second.stderr
    os.kill(process.pid, number)
    process.communicate(timeout=60)
    if number == signal.SIGKILL:  # nobody could clean up: it is found
        assert marked_processes(state["id"])
        done = _cluster("down", "--state", folder)
        assert done.returncode == 0, done.stderr
    assert not marked_processes(state["id"])
    assert not Path(state["temp"]).exists()
    assert [p.relative_to(folder).as_posix() for p in sorted(folder.rglob("*"))] == [
        "first",
        "first/metrics.jsonl",
    ]
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in str(p.info["cmdline"])]
