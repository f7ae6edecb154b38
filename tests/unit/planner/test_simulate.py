"""The simulation against what can be computed exactly."""

import math
from dataclasses import replace

import numpy as np
import pytest

from pipelines.planner.simulate import Cluster, draw, expected_wall, goodput, simulate, sweep, young_interval

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


def test_storage_limits_the_step():
    assert replace(BASE, data_rate=16.0).step == pytest.approx(4.0)


def test_goodput_falls_with_size_and_is_drawn(tmp_path):
    rows = sweep(BASE, [8, 64, 1024], [300], steps=3000, seeds=3)
    values = [row["goodput"] for row in rows]
    assert 1 > values[0] > values[1] > values[2] > 0
    assert values[0] == pytest.approx(goodput(replace(BASE, gpus=8), 3000, 300, 3))
    draw(rows, str(tmp_path / "goodput.png"))
    assert (tmp_path / "goodput.png").stat().st_size > 5000
