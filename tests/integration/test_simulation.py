"""The simulation of a small case against the same case run for real, its figures from ``bench``.

Bench says how long a step and a checkpoint take; a first run with a killed worker says how long a restart
takes. A second run with two killed workers is what the simulation has to foretell.
"""

import json
import os
import signal
import time

import psutil
import pytest
import yaml

from pipelines.runs.ledger import read_rows
from tests.cluster_commands import unigeoseg
from tests.tiny_store import write_store
from tests.train_runs import finish, start, tiny_values

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.alone]
STEPS, EVERY = 100, 20
CASE = {
    "train.global_batch": 16,
    "model.image_size": 96,
    "model.vision.embed_dim": 32,
    "model.language.layers": 2,
    "model.language.hidden_size": 128,
    "checkpoint.every": EVERY,
    "checkpoint.max_failures": 3,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulation")
    write_store(folder / "store")
    (folder / "case.yaml").write_text(yaml.safe_dump(tiny_values(**CASE, **{"train.steps": STEPS})))
    return folder


def _bench(place, what, *more):
    done = unigeoseg("bench", what, "--preset", place / "case.yaml", *more, "--json", OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    path = place / f"{what}.json"
    path.write_text(done.stdout)
    return path


def _wait(process, run, reached):
    """Waits until the last logged step is as wished; returns it."""
    while True:
        rows = read_rows(run / "metrics.jsonl")
        if rows and reached(rows[-1]["step"]):
            return rows[-1]["step"]
        assert process.poll() is None, finish(process)
        time.sleep(0.05)


def _killed_run(place, name, steps, at):
    """Trains for real and kills the worker when each of the steps ``at`` is done.

    Returns:
        Seconds of the whole from the first step's beginning, of the kills since then, and of each restart.
    """
    run = place / name
    process = start("ray", run, place / "store", **{**CASE, "train.steps": steps})
    kills = []
    for step in at:
        last = _wait(process, run, lambda now, step=step: now >= step)
        (worker,) = (
            child for child in psutil.Process(process.pid).children(recursive=True)
            if "TrainWorker" in " ".join(child.cmdline())
        )  # fmt: skip
        os.kill(worker.pid, signal.SIGKILL)
        kills.append(time.time())
        _wait(process, run, lambda now, last=last: now < last)  # it has gone back to its checkpoint
    finish(process)
    rows = read_rows(run / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(steps))
    begun = rows[0]["time"] - rows[0]["waits"]["step"]
    resumed = [
        (row["time"] - row["waits"]["step"]) for row in rows if row["step"] and row["step"] % EVERY == 0
    ]
    restarts = [min(t for t in resumed if t > when) - when for when in kills]
    return rows[-1]["time"] - begun, [when - begun for when in kills], restarts


def test_the_simulation_foretells_a_run_with_lost_workers(place):
    step, checkpoint = _bench(place, "step", "--steps", 7), _bench(place, "checkpoint", "--widths", 1)
    _, _, restarts = _killed_run(place, "calibrate", 45, [29])
    wall, kills, seen = _killed_run(place, "real", STEPS, [31, 75])
    told = unigeoseg(
        *("simulate", "--gpus", 1, "--per-node", 1, "--samples", CASE["train.global_batch"]),
        *("--steps", STEPS, "--every", EVERY, "--bench-step", step, "--bench-checkpoint", checkpoint),
        *("--restart", restarts[0], "--failures", ",".join(f"{when:.2f}" for when in kills), "--json"),
    )
    assert told.returncode == 0, told.stderr
    (row,) = json.loads(told.stdout)["rows"]
    compute = json.loads(told.stdout)["assumptions"]["compute"]
    print(
        f"\nreal {wall:.1f} s, simulated {row['wall_seconds']:.1f} s, "
        f"ratio {row['wall_seconds'] / wall:.3f}; "
        f"goodput real {STEPS * compute / wall:.3f}, simulated {row['goodput']:.3f}; step {compute:.3f} s, "
        f"restart calibrated {restarts[0]:.1f} s, seen {', '.join(f'{s:.1f} s' for s in seen)}"
    )
    assert row["wall_seconds"] == pytest.approx(wall, rel=0.25)
