"""The simulation against what can be computed exactly."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from jobs.simulate import simulate as command
from pipelines.planner.simulate import (
    Cluster,
    draw,
    expected_wall,
    goodput,
    mean_wall,
    replay,
    simulate,
    sweep,
    young_interval,
)
from unigeoseg.errors import UserError

BASE = Cluster(gpus=64, compute=1.0, node_life=8 * 3600.0, checkpoint=20.0, restart=120.0)


def test_without_failures_only_checkpoints_cost():
    calm = replace(BASE, node_life=1e15)
    assert simulate(calm, 100, 10, seed=0) == pytest.approx(100 * 1.0 + 10 * 20.0)


@pytest.mark.parametrize("every", [60, 300, 1200])
def test_mean_wall_time_is_dalys(every):
    walls = np.array([simulate(BASE, 3600, every, seed) for seed in range(600)])
    error = walls.std() / math.sqrt(len(walls))
    assert abs(walls.mean() - expected_wall(BASE, 3600, every)) < 4 * error


def test_youngs_cadence_is_near_the_best():
    best = young_interval(BASE)
    assert best == round(math.sqrt(2 * 20.0 * 3600.0))
    wall = {every: expected_wall(BASE, 36000, every) for every in range(50, 2000, 10)}
    assert expected_wall(BASE, 36000, best) < 1.01 * min(wall.values())


def test_the_mean_has_a_last_stretch_that_is_shorter():
    walls = np.array([simulate(BASE, 1000, 300, seed) for seed in range(600)])
    assert abs(walls.mean() - expected_wall(BASE, 1000, 300)) < 4 * walls.std() / math.sqrt(len(walls))


@pytest.mark.parametrize(
    ("change", "share"),
    [
        # Strides of 1,000 s on a cluster that loses a node every 10 s, or 0.1 s: beyond what floats hold.
        ({"node_life": 80.0}, 0.0),
        ({"node_life": 0.8}, 0.0),
        # Restarts that are hit themselves: e^-120 of the time.
        ({"node_life": 8.0, "restart": 120.0, "compute": 1e-3, "checkpoint": 0.0}, 0.0),
        # Many losses, each of them cheap: a share in closed form.
        ({"node_life": 8.0, "restart": 0.0, "checkpoint": 0.0, "compute": 1e-4}, 0.1 / math.expm1(0.1)),
    ],
)
@pytest.mark.timeout(60)
def test_a_run_that_hardly_ends_is_told_at_once(change, share):
    cluster = replace(BASE, **change)
    steps = 10**9 if share else 10_000
    assert goodput(cluster, steps, 1000) == pytest.approx(share, rel=1e-6, abs=1e-20)
    assert mean_wall(cluster, steps, 1000) == expected_wall(cluster, steps, 1000)


def test_storage_limits_the_step():
    assert replace(BASE, data_rate=16.0).step == pytest.approx(4.0)


def test_goodput_falls_with_size_and_is_drawn(tmp_path):
    rows = sweep(BASE, [8, 64, 1024], [300], steps=3000, seeds=3)
    values = [row["goodput"] for row in rows]
    assert 1 > values[0] > values[1] > values[2] > 0
    assert values[0] == pytest.approx(goodput(replace(BASE, gpus=8), 3000, 300, 3))
    draw(rows, str(tmp_path / "goodput.png"))
    assert (tmp_path / "goodput.png").stat().st_size > 5000


def test_given_failures_cost_what_they_cost():
    # Lost at 25 s: 5 s of the third stride of 10 steps, then 120 s of restart, and so on.
    small = replace(BASE, checkpoint=0.0)
    assert replay(small, 100, 10, [25.0]) == pytest.approx(100 + 5 + 120)
    assert replay(small, 100, 10, [25.0, 200.0]) == pytest.approx(100 + 5 + 120 + 5 + 120)
    assert replay(small, 100, 10, [25.0, 30.0]) == pytest.approx(100 + 5 + 5 + 120)  # hit while it restarts


def _simulate(*arguments):
    result = CliRunner().invoke(command, [*arguments, "--json"], standalone_mode=False)
    if result.exception:
        raise result.exception
    return json.loads(result.stdout)


def test_the_command_takes_its_times_from_benchmarks(tmp_path):
    step, checkpoint = tmp_path / "step.json", tmp_path / "checkpoint.json"
    step.write_text(
        json.dumps({"rows": [{"name": "vision", "seconds": 0.5}, {"name": "backward", "seconds": 1.5}]})
    )
    checkpoint.write_text(json.dumps({"rows": [{"name": "width_1", "stall_seconds": 3.0}]}))
    told = _simulate("--bench-step", str(step), "--bench-checkpoint", str(checkpoint), "--gpus", "8,64",
                     "--every", "100", "--steps", "1000", "--out", str(tmp_path / "g.png"))  # fmt: skip
    assert told["assumptions"]["compute"] == 2.0 and told["assumptions"]["checkpoint"] == 3.0
    assert [row["gpus"] for row in told["rows"]] == [8, 64]
    assert (tmp_path / "g.png").stat().st_size > 5000
    engine = [{"batch": 2, "step_seconds": 3.5}, {"batch": 8, "out_of_memory": "CUDA out of memory"}]
    step.write_text(json.dumps({"rows": [{"name": "vision", "seconds": 0.5}], "engine": engine}))
    told = _simulate("--bench-step", str(step), "--gpus", "8", "--every", "100", "--steps", "1000")
    assert told["assumptions"]["compute"] == 3.5  # the engine's, of the last batch that there is a time of


def test_the_command_replays_given_failures():
    told = _simulate("--step", "1", "--checkpoint", "0", "--restart", "120", "--gpus", "1", "--every", "10",
                     "--steps", "100", "--failures", "25.5,200")  # fmt: skip
    wall = 100 + 5.5 + 120 + 4.5 + 120
    assert told["rows"] == [
        {"every": 10, "wall_seconds": pytest.approx(wall), "goodput": pytest.approx(100 / wall)}
    ]


@pytest.mark.timeout(60)
def test_the_command_tells_of_a_run_that_never_ends():
    given = ["--step", "10", "--node-life", "1", "--gpus", "8,1024", "--every", "5,1000", "--steps", "2000"]
    rows = {(row["gpus"], row["every"]): row for row in _simulate(*given, "--restart", "10")["rows"]}
    assert rows[8, 5]["hours"] == pytest.approx(2000 * 10 / rows[8, 5]["goodput"] / 3600)
    assert rows[1024, 1000]["hours"] is None and rows[1024, 1000]["goodput"] < 1e-9
    text = CliRunner().invoke(command, given, standalone_mode=False).stdout
    assert " never " in text and "checkpoints more often" in text and "inf" not in text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "--step"),
        (("--step", "0"), "compute 0"),
        (("--step", "nan"), "compute nan"),
        (("--step", "1", "--node-life", "0"), "node life 0"),
        (("--step", "1", "--restart", "-1"), "restart -1"),
        (("--step", "1", "--data-rate", "0"), "data rate 0"),
        (("--step", "1", "--checkpoint", "inf"), "checkpoint inf"),
        (("--step", "1", "--gpus", "eight"), "--gpus eight"),
        (("--step", "1", "--every", "0"), "--every 0"),
        (("--step", "1", "--failures", "soon"), "--failures soon"),
        (("--step", "1", "--failures", "5,-1"), "--failures 5,-1"),
        (("--bench-step", "nowhere.json"), "nowhere.json"),
        (("--bench-step", __file__), "bench step"),
    ],
)
def test_the_command_refuses(arguments, says):
    with pytest.raises(UserError, match=says):
        _simulate(*arguments)
