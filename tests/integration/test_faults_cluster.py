"""What a run survives on a cluster of several nodes: a lost one, an announced loss, fewer and more again."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest
import yaml

from tests.cluster_commands import unigeoseg
from tests.fault_cluster import Nodes
from tests.fault_runs import (
    LONG,
    assert_same_run,
    assert_tracked_once,
    committed,
    own_database,
    rows,
    slow_motion,
    wait_for,
    weights,
)
from tests.train_runs import ROOT, finish, start, tiny_values

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]
#: With dropout: what is dropped depends on samples and steps, not on how many workers there are.
ELASTIC = {"train.steps": 80, "checkpoint.every": 5, "model.tate.dropout": 0.1}


@pytest.fixture(scope="module")
def nodes():
    with Nodes() as found:
        yield found


def _worker_after_checkpoint(nodes, process, run, step=1):
    def look():
        found = nodes.workers()
        while found and not committed(run, step) and process.poll() is None:
            time.sleep(0.02)
        return [worker for worker in found if worker.is_running()]

    return wait_for("a worker after a checkpoint", look, process)[-1]


def test_a_node_is_lost(nodes, undisturbed, tmp_path, tiny_store):
    nodes.resize(3)  # two to train on, one in reserve
    run = tmp_path / "run"
    process = start("ray", run, tiny_store, environment=nodes.environment, **LONG)
    try:
        nodes.lose(nodes.raylet_of(_worker_after_checkpoint(nodes, process, run)))
        output = finish(process)
    finally:
        process.kill()
    assert "resuming from step" in output
    assert_same_run(run, undisturbed)
    assert_tracked_once(own_database(run), "FINISHED", 40)


def test_an_announced_loss_brings_a_checkpoint_and_counts_as_no_failure(
    nodes, undisturbed, tmp_path, tiny_store
):
    nodes.resize(3)
    run = tmp_path / "run"
    options = {**LONG, "checkpoint.every": 1000, "checkpoint.max_failures": 0}
    process = start("ray", run, tiny_store, environment=nodes.environment, **options)
    try:
        wait_for("first steps", lambda: (run / "metrics.jsonl").exists(), process)
        stopped = nodes.workers()
        for worker in stopped:  # the notice is to come before the run is over
            os.kill(worker.pid, signal.SIGSTOP)
        lost = nodes.raylet_of(stopped[-1])
        nodes.announce_loss(lost, seconds=60)
        time.sleep(2)
        for worker in stopped:
            os.kill(worker.pid, signal.SIGCONT)
        (step,) = wait_for("a checkpoint", lambda: committed(run), process)
        nodes.lose(lost)
        output = finish(process)
    finally:
        process.kill()
    assert (
        "will be taken away in" in output and f"wrote checkpoints/step-{step:08d} before its time" in output
    )
    assert f"resuming from step {step} " in output
    assert_same_run(run, undisturbed)
    assert_tracked_once(own_database(run), "FINISHED", 40)


def test_more_workers_than_the_cluster_has(nodes, tmp_path, tiny_store):
    nodes.resize(2)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny_values(**{"scale.workers": 4})))
    common = ("--preset", tmp_path / "tiny.yaml", "--store", tiny_store, "--no-evaluate")
    done = unigeoseg("train", *common, "--run", tmp_path / "run", **nodes.environment)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    said = "asks for 4 (4 workers of 1 CPU), the cluster has 2 and no autoscaler that could add nodes"
    assert said in done.stderr


def test_two_workers_then_one_then_two(nodes, tmp_path, tiny_store):
    nodes.resize(2)
    alone = tmp_path / "alone" / "run"
    finish(start("plain", alone, tiny_store, **ELASTIC, **{"train.micro_batch": 2}))
    run = tmp_path / "elastic" / "run"
    options = {"scale.workers": 2, "scale.min_workers": 1, "scale.resize_seconds": 2, **ELASTIC}
    process = start("ray", run, tiny_store, environment=nodes.environment, **options)
    sizes = []
    try:
        nodes.lose(nodes.raylet_of(_worker_after_checkpoint(nodes, process, run)))
        first = committed(run)[-1]
        sizes.append(_world_size(run, first))
        # One of two workers may still have come while the node went: what counts is who wrote it.
        sizes.append(wait_for("a checkpoint of one worker", lambda: _smaller(run, first), process))
        survivor = _worker_after_checkpoint(nodes, process, run, step=first + 1)
        with slow_motion(survivor):  # so that there are steps left when Ray takes the node in
            nodes.resize(2)
            wait_for("two workers", lambda: len(set(nodes.workers()) - {survivor}) == 2, process)
        output = finish(process)
    finally:
        process.kill()
    sizes.append(_world_size(run, 80))
    assert sizes == [2, 1, 2], output
    asked = re.findall(r"wrote checkpoints/step-(\d+) before its time", output)
    assert [int(step) for step in re.findall(r"resuming from step (\d+)", output)][-1] == int(asked[-1])
    assert output.count("resuming from step") == 2
    assert rows(run / "ledger.jsonl") == rows(alone / "ledger.jsonl")
    for one, other in zip(rows(run / "metrics.jsonl"), rows(alone / "metrics.jsonl"), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-3)
    found, wanted = weights(run), weights(alone)
    apart = sum(float(((found[k] - wanted[k]) ** 2).sum()) for k in wanted)
    assert (apart / sum(float((v**2).sum()) for v in wanted.values())) ** 0.5 < 1e-3
    assert_tracked_once(own_database(run), "FINISHED", 80)


_UNFIT = """
import ray
from pipelines.train.driver.avoid import AvoidNodes
from pipelines.train.loop.channel import Mailbox

ray.init(log_to_driver=False)
known = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
assert len(known) == 2, known
mailbox = ray.remote(num_cpus=0)(Mailbox).remote()
avoid = AvoidNodes(mailbox)
assert avoid.on_controller_start_worker_group(scaling_config=None, num_workers=1) is None
for unfit, other in (known, known[::-1]):
    mailbox = ray.remote(num_cpus=0)(Mailbox).remote()
    ray.get(mailbox.leave_out.remote({unfit: "its device multiplies wrongly"}))
    selector = AvoidNodes(mailbox).on_controller_start_worker_group(scaling_config=None, num_workers=1)
    place = ray.util.placement_group([{"CPU": 1}], bundle_label_selector=[selector])
    ray.get(place.ready(), timeout=60)
    assert list(ray.util.placement_group_table(place)["bundles_to_node_id"].values()) == [other]
    ray.util.remove_placement_group(place)
"""


def test_an_unfit_node_gets_no_workers(nodes):
    nodes.resize(2)
    done = subprocess.run(
        [sys.executable, "-c", _UNFIT],
        cwd=ROOT,
        env={**os.environ, **nodes.environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def _smaller(run, first):
    """The world size of a checkpoint after ``first`` that fewer than two workers wrote."""
    for step in committed(run, first + 1):
        with suppress(FileNotFoundError):  # it made room for a newer one
            if (size := _world_size(run, step)) < 2:
                return size
    return None


def _world_size(run, step):
    return json.loads((run / f"checkpoints/step-{step:08d}/state.json").read_text())["world_size"]
