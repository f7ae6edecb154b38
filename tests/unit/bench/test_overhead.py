"""Turns between processes, and what the rounds of a comparison say."""

import threading

import numpy as np
import pytest

from pipelines.bench.overhead import compare_rounds, micro_batches_for
from pipelines.bench.turns import Turns, serve_turns


def test_only_one_works_at_a_time(tmp_path):
    working, most, order = [], [], []

    def step(name):
        working.append(name)
        most.append(len(working))
        order.append(name)
        working.remove(name)
        return float(len(order))

    threads = [
        threading.Thread(target=serve_turns, args=(tmp_path, name, lambda name=name: step(name)))
        for name in ("a", "b")
    ]
    for thread in threads:
        thread.start()
    with Turns(tmp_path) as turns:
        assert turns.ask("a", 2) == [1.0, 2.0]
        assert turns.ask("b", 1) == [3.0]
        assert turns.ask("a", 1) == [4.0]
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert order == ["a", "a", "b", "a"] and set(most) == {1}


def test_a_worker_that_is_gone_is_said(tmp_path):
    with Turns(tmp_path, alive=lambda: False) as turns, pytest.raises(RuntimeError, match="the a process"):
        turns.ask("a", 1)


def test_slow_rounds_do_not_hide_a_small_overhead():
    """The machine is up to three times slower in some rounds; Ray's side costs 2 % more in all of them."""
    rng = np.random.default_rng(1)
    load = rng.uniform(1, 3, 12)
    plain = list(load * rng.normal(1, 0.003, 12))
    ray = list(load * rng.normal(1.02, 0.003, 12))
    found = compare_rounds(plain, ray)
    assert found["overhead_percent"] == pytest.approx(2, abs=0.5)
    assert 0 < found["low_percent"] <= found["overhead_percent"] <= found["high_percent"] < 3
    found = compare_rounds(plain, [p * r for p, r in zip(plain, rng.normal(1, 0.02, 12), strict=True)])
    assert found["low_percent"] < 0 < found["high_percent"]


@pytest.mark.parametrize(
    ("update", "each", "wanted", "number"), [(0.11, 0.22, 1.0, 4), (0.0, 0.1, 1.0, 10), (0.5, 0.9, 1.0, 1)]
)
def test_a_step_has_the_wanted_length(update, each, wanted, number):
    asked = []

    def step_of(micros):
        asked.append(micros)
        return update + each * micros

    assert micro_batches_for(wanted, step_of) == number
    assert len(asked) == 2


def test_a_step_whose_length_is_its_update():
    assert micro_batches_for(1.0, lambda number: 0.25) == 4
