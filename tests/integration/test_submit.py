"""A local cluster and jobs on it, through the commands: exit codes, stopping, MLflow, and nothing left."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import requests
import yaml

from cluster.local.state import read_state
from cluster.submission.client import connect
from cluster.submission.follow import Follower
from cluster.submission.job import Order, submit
from cluster.submission.tree import read_tree
from tests.cluster_commands import unigeoseg
from tests.tiny_store import write_store
from tests.train_runs import ROOT, tiny_values

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Head, two workers, MLflow and S3; its state folder."""
    folder = tmp_path_factory.mktemp("cluster")
    state = ("--state", folder / "state")
    up = unigeoseg("cluster", "up", "--workers", 2, *state, "--data", folder / "data")
    try:
        assert up.returncode == 0, up.stdout + up.stderr
        yield folder
    finally:
        unigeoseg("cluster", "down", "--force", *state)
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
    status = json.loads(unigeoseg("cluster", "status", "--state", cluster / "state", "--json").stdout)
    assert status["running"] and sum(node["alive"] for node in status["nodes"]) == 3
    again = unigeoseg("cluster", "up", "--state", cluster / "state")
    assert again.returncode == 2 and "runs already" in again.stderr


def test_a_submitted_training_is_followed_to_its_end(cluster, job):
    submit, train = job
    done = unigeoseg(*submit, *train, "--run", cluster / "runs/first")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4/4" in done.stdout + done.stderr
    assert json.loads((cluster / "runs/first/summary.json").read_text())["steps"] == 4
    tracked = json.loads((cluster / "runs/first/mlflow.json").read_text())
    assert tracked["uri"].startswith("http://127.0.0.1") and tracked["run_id"]


def test_a_jobs_exit_code_is_the_commands(cluster, job):
    submit, train = job
    missing = [cluster / "nowhere" if part == cluster / "store" else part for part in train]
    done = unigeoseg(*submit, *missing, "--run", cluster / "runs/wrong")
    assert done.returncode == 2 and "no store at" in done.stdout + done.stderr


def test_a_job_is_stopped_and_down_asks_while_one_runs(cluster, job):
    submit, train = job
    started = unigeoseg(
        *submit, "--no-wait", *train, "--run", cluster / "runs/long", "--set", "train.steps=9999"
    )
    name = started.stdout.split()[-1]
    refused = unigeoseg("cluster", "down", "--state", cluster / "state")
    assert refused.returncode == 2 and name in refused.stderr
    assert unigeoseg(*submit, "stop", name).returncode == 0
    listed = unigeoseg(*submit, "list").stdout
    assert any(name in line and "STOPPED" in line for line in listed.splitlines())
    assert Path(cluster / "state").is_dir()


def test_a_store_is_built_on_s3_trained_on_and_evaluated(cluster, job):
    submit, _ = job
    store, run = "s3://unigeoseg/store", cluster / "runs/onstore"
    small = ("--set", "source.scenes=24", "--set", "workers=2")
    built = unigeoseg(*submit, "data", "build", "--source", "synthetic", "--out", store, *small)
    assert built.returncode == 0, built.stdout + built.stderr
    trained = unigeoseg(*submit, "train", "--preset", cluster / "tiny.yaml", "--store", store,
                        "--no-evaluate", "--run", run)  # fmt: skip
    assert trained.returncode == 0, trained.stdout + trained.stderr
    evaluated = unigeoseg(
        *submit, "evaluate", "--model", run / "export", "--data", store, "--out", cluster / "e"
    )
    assert evaluated.returncode == 0, evaluated.stdout + evaluated.stderr
    assert set(json.loads((cluster / "e/evaluation.json").read_text())["tasks"]) <= {
        "interactive", "referring", "reasoning",
    }  # fmt: skip


def test_a_submitted_sweep_trains_and_evaluates_its_trials(cluster, job):
    """On the store built above; its trials are placed on the cluster's workers."""
    submit, _ = job
    (cluster / "space.yaml").write_text(
        yaml.safe_dump({"metric": "loss", "mode": "min", "space": {"train.lr": {"choice": [1e-3, 1e-4]}}})
    )
    preset = cluster / "swept.yaml"
    evaluation = {"batch": 8, "workers": 1, "max_samples": 6}
    longer = {"tokenizer.max_length": 320, "model.language.max_positions": 400}
    values = tiny_values(**longer, **{"train.steps": 4, "evaluation": evaluation})
    preset.write_text(yaml.safe_dump(values))
    done = unigeoseg(
        *submit,
        *("sweep", "--space", cluster / "space.yaml", "--preset", preset, "--store", "s3://unigeoseg/store"),
        *("--trials", 2, "--scheduler", "fifo", "--out", cluster / "sweep"),
        seconds=500,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    trials = json.loads((cluster / "sweep/sweep.json").read_text())["trials"]
    assert [trial["state"] for trial in trials] == ["finished"] * 2
    assert yaml.safe_load((cluster / "sweep/best.yaml").read_text())["name"] == "tiny-best"


def test_rays_own_command_submits_too(cluster, job):
    """``ray job submit --working-dir . -- python -m jobs.train ...``; ``.rayignore`` keeps the tree small."""
    _, train = job
    there = read_state(cluster / "state")
    environment = {**os.environ, **there.environment}
    environment.pop("RAY_ADDRESS")
    command = [
        *(Path(sys.executable).parent / "ray", "job", "submit", "--address", there.dashboard),
        *(
            "--working-dir",
            ".",
            "--",
            "python",
            "-m",
            "jobs.train",
            *train[1:],
            "--run",
            cluster / "runs/rays",
        ),
    ]
    done = subprocess.run(
        [str(part) for part in command],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((cluster / "runs/rays/summary.json").read_text())["steps"] == 4


def test_an_expired_token_is_refused_by_the_cluster(cluster, job):
    there = read_state(cluster / "state")
    done = unigeoseg(
        *("submit", "--allow-dirty", "--address", there.dashboard, "--state", cluster / "none", "list"),
        RAY_AUTH_TOKEN="0" * 64,
    )
    assert done.returncode == 2 and "wrong or expired" in done.stderr, done.stderr


def test_secrets_reach_the_job_and_no_page_or_log(cluster, job):
    """S3 keys and what ``--secret`` names travel sealed; ``--env`` is for all to see."""
    submit, _ = job
    given = {"UNIGEOSEG_TRIED_SECRET": "s3cr3t-of-the-test", "UNIGEOSEG_TRIED_OPEN": "plain"}
    flags = ("--secret", "UNIGEOSEG_TRIED_SECRET", "--env", "UNIGEOSEG_TRIED_OPEN")
    done = unigeoseg(*submit, *flags, "data", "info", "s3://unigeoseg/store", **given)
    assert done.returncode == 0, done.stdout + done.stderr  # the keys arrived
    there = read_state(cluster / "state")
    headers = {"Authorization": f"Bearer {Path(there.token_file).read_text()}"}
    page = requests.get(f"{there.dashboard}/api/jobs/", headers=headers, timeout=30).text
    printed = [("page", page), ("stdout", done.stdout), ("stderr", done.stderr), *_logs(there)]
    hidden = [given["UNIGEOSEG_TRIED_SECRET"], there.environment["AWS_SECRET_ACCESS_KEY"]]
    assert "UNIGEOSEG_TRIED_OPEN" in page
    found = [
        (str(place), line)
        for place, text in printed
        for line in text.splitlines()
        if any(secret in line for secret in hidden)
    ]
    assert not found


LOOK = """
import hashlib, logging, os, ray, sys
ray.init(log_to_driver=False, logging_level=logging.ERROR)

@ray.remote(num_cpus=1, scheduling_strategy="SPREAD")
def look():
    value = os.environ.get("UNIGEOSEG_TRIED_SECRET", "")
    print("a task prints", value)
    print("a task errs", value, file=sys.stderr)
    logging.getLogger("ray").warning("a task logs %s", value)
    return ray.get_runtime_context().get_node_id(), hashlib.sha256(value.encode()).hexdigest()

@ray.remote(num_cpus=0, runtime_env={"env_vars": {"OF_ITS_OWN": "1"}})
class Actor:
    def look(self):
        return os.environ.get("OF_ITS_OWN"), len(os.environ.get("UNIGEOSEG_TRIED_SECRET", ""))

found = ray.get([look.remote() for _ in range(8)])
print("NODES", len({node for node, _ in found}), "VALUES", *{value for _, value in found})
print("ACTOR", *ray.get(Actor.remote().look.remote()))
"""


def test_secrets_reach_tasks_on_other_nodes_and_no_file_of_theirs(cluster):
    there, secret = read_state(cluster / "state"), f"s3cr3t-{os.getpid()}-of-tasks"
    client = connect(there.dashboard, there.token_file)
    order = Order(["python", "-c", LOOK], read_tree(ROOT), {}, {"UNIGEOSEG_TRIED_SECRET": secret})
    name = submit(client, there.dashboard, order, there.token_file)
    assert Follower(client, name).run() == 0
    said = client.get_job_logs(name)
    nodes = int(said.partition("NODES ")[2].split()[0])
    assert nodes == 2 and f"VALUES {hashlib.sha256(secret.encode()).hexdigest()}\n" in said
    assert f"ACTOR 1 {len(secret)}" in said
    files = _logs(there)
    assert sum("a task prints <hidden>" in text for path, text in files if path.suffix == ".out") == 2
    assert sum("a task logs <hidden>" in text for path, text in files if path.suffix == ".err") == 2
    assert not [path for path, text in files if secret in text]


def _logs(there):
    """All that the cluster's processes wrote: Ray's, our services', and those of tasks."""
    found = [path for path in Path(there.temp).rglob("*") if path.suffix in (".log", ".out", ".err")]
    return [(path, path.read_text(errors="replace")) for path in found if path.is_file()]


def test_a_job_outlives_its_follower(cluster, job):
    submit, train = job
    command = [*submit, *train, "--run", cluster / "runs/alone", "--set", "train.steps=40"]
    follower = subprocess.Popen(
        [sys.executable, "-m", "jobs.cli", *map(str, command)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    name = next(line.split()[1].rstrip(";") for line in follower.stdout if line.startswith("job "))
    for line in follower.stdout:
        if "step " in line:
            break
    follower.send_signal(signal.SIGKILL)
    follower.wait()
    time.sleep(1)
    again = unigeoseg(*submit, "follow", name)
    assert again.returncode == 0 and "40/40" in again.stdout, again.stdout + again.stderr
