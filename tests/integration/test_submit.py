"""A local cluster and jobs on it, through the commands: exit codes, stopping, MLflow, and nothing left."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import yaml

from tests.tiny_store import write_store
from tests.train_runs import ROOT, tiny_values

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def _unigeoseg(*arguments: object, seconds: float = 300) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI")}
    return subprocess.run(
        [sys.executable, "-m", "jobs.cli", *map(str, arguments)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Head, two workers, MLflow and S3; its state folder."""
    folder = tmp_path_factory.mktemp("cluster")
    state = ("--state", folder / "state")
    up = _unigeoseg("cluster", "up", "--workers", 2, *state, "--data", folder / "data")
    try:
        assert up.returncode == 0, up.stdout + up.stderr
        yield folder
    finally:
        _unigeoseg("cluster", "down", "--force", *state)
    left = [p for p in psutil.process_iter(["cmdline"]) if str(folder) in " ".join(p.info["cmdline"] or [])]
    assert not left


@pytest.fixture(scope="module")
def job(cluster):
    """What every submission of a training shares."""
    preset = cluster / "tiny.yaml"
    preset.write_text(yaml.safe_dump(tiny_values(**{"scale.workers": 2, "train.steps": 4})))
    store = write_store(cluster / "store")
    train = ("train", "--preset", preset, "--store", store, "--no-evaluate")
    return ("submit", "--allow-dirty", "--state", cluster / "state"), train


def test_status_tells_of_nodes_and_a_second_start_is_refused(cluster):
    status = json.loads(_unigeoseg("cluster", "status", "--state", cluster / "state", "--json").stdout)
    assert status["running"] and sum(node["alive"] for node in status["nodes"]) == 3
    again = _unigeoseg("cluster", "up", "--state", cluster / "state")
    assert again.returncode == 2 and "runs already" in again.stderr


def test_a_submitted_training_is_followed_to_its_end(cluster, job):
    submit, train = job
    done = _unigeoseg(*submit, *train, "--run", cluster / "runs/first")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4/4" in done.stdout + done.stderr
    assert json.loads((cluster / "runs/first/summary.json").read_text())["steps"] == 4
    tracked = json.loads((cluster / "runs/first/mlflow.json").read_text())
    assert tracked["uri"].startswith("http://127.0.0.1") and tracked["run_id"]


def test_a_jobs_exit_code_is_the_commands(cluster, job):
    submit, train = job
    missing = [cluster / "nowhere" if part == cluster / "store" else part for part in train]
    done = _unigeoseg(*submit, *missing, "--run", cluster / "runs/wrong")
    assert done.returncode == 2 and "no store at" in done.stdout + done.stderr


def test_a_job_is_stopped_and_down_asks_while_one_runs(cluster, job):
    submit, train = job
    started = _unigeoseg(
        *submit, "--no-wait", *train, "--run", cluster / "runs/long", "--set", "train.steps=9999"
    )
    name = started.stdout.split()[-1]
    refused = _unigeoseg("cluster", "down", "--state", cluster / "state")
    assert refused.returncode == 2 and name in refused.stderr
    assert _unigeoseg(*submit, "stop", name).returncode == 0
    listed = _unigeoseg(*submit, "list").stdout
    assert any(name in line and "STOPPED" in line for line in listed.splitlines())
    assert Path(cluster / "state").is_dir()
