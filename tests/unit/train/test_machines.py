"""Machines that compute wrongly, differ in their clocks, or are slower than the others."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.distributed as dist

from pipelines.train.engine import health
from pipelines.train.engine.distributed import ensure_process_group, leave_process_group
from pipelines.train.engine.health import Health, examine, judged, multiplied
from pipelines.train.engine.step import StepSeconds
from pipelines.train.loop.advice import SLOW_ROWS, WINDOW, Advice
from pipelines.train.loop.machines import slowest
from pipelines.train.loop.metrics import RankReport

CPU = torch.device("cpu")


@pytest.fixture
def alone():
    made = ensure_process_group()
    yield
    if made:
        leave_process_group()


def test_a_sound_machine_is_fit(alone):
    (own,) = examine(CPU, "here")
    assert (own.rank, own.place, own.device, own.faults) == (0, "here", "cpu", ())
    assert own.flops > 1e8 and judged([own])[0] == {}


@pytest.mark.parametrize("wrong", [1.0, 0.25, float("nan")], ids=["by-one", "fraction", "nan"])
def test_one_wrong_number_of_a_product_is_found(alone, monkeypatch, wrong):
    real = torch.Tensor.__matmul__

    def broken(a, b):
        product = real(a, b)
        if product.dim() == 2 and len(product) == health._SIDE["cpu"]:
            product[100, 200] += wrong
        return product

    assert not multiplied(CPU)[1]
    monkeypatch.setattr(torch.Tensor, "__matmul__", broken)
    assert multiplied(CPU)[1]
    unfit, _ = judged(examine(CPU, "node-a"))
    assert list(unfit) == ["node-a"] and "(rank 0): its device multiplies wrongly" in unfit["node-a"]


def test_a_wrong_sum_is_found(alone, monkeypatch):
    monkeypatch.setattr(dist, "all_reduce", lambda values, *_: values[7:8].add_(1))
    assert "sums over the ranks come out wrong here" in judged(examine(CPU, "a"))[0]["a"]


def test_what_differs_from_the_others_is_told():
    usual = [Health(rank, f"n{rank}", f"h{rank}", "H200", 1e13, 1000.0 + rank / 10) for rank in range(4)]
    assert judged(usual) == ({}, [])
    late = dataclasses.replace(usual[1], clock=1031.0)
    slow = dataclasses.replace(usual[2], flops=3e12)
    other = dataclasses.replace(usual[3], device="cpu", flops=1e9, doubts=("0.4 GiB of memory left",))
    unfit, told = judged([usual[0], late, slow, other])
    assert unfit == {} and len(told) == 3
    assert told[0] == "rank 3 on h3: 0.4 GiB of memory left"
    assert told[1].startswith("rank 1 on h1: its clock is +31 s")
    assert told[2] == "rank 2 on h2: it multiplies at 30% of the others' speed"


def reports(*own, backward=1.0):
    return [
        RankReport(StepSeconds(wait, forward, backward), 5, host=f"h{i}")
        for i, (wait, forward) in enumerate(own)
    ]


def test_the_rank_that_all_wait_for_is_named():
    assert slowest(reports((0.1, 1.0))) is None
    assert slowest(reports((0.1, 1.0), (0.1, 1.1), (0.0, 1.2))) is None
    found = slowest(reports((0.1, 0.9), (1.5, 1.5), (0.1, 0.9)))
    assert found == {"rank": 1, "host": "h1", "times": pytest.approx(3.0), "data": pytest.approx(0.5)}
    assert slowest(reports((0.0, 0.01), (0.0, 0.03), backward=9.0)) is None  # nobody feels that


def test_it_is_said_once_and_only_when_it_lasts():
    said = []
    advice = Advice(said.append)
    share = {"interactive": 1.0}
    rng = np.random.default_rng(0)

    def row(step, rank):
        slow = (
            {"slowest": {"rank": rank, "host": "h", "times": 2.0, "data": 0.25}} if rank is not None else {}
        )
        waits = {"data": 0.0, "step": 1.0 + rng.random()}
        return {"step": step, "waits": waits, "shares": share, "target_shares": share, **slow}

    for step, rank in enumerate([1, 1, None, *[2, 3] * SLOW_ROWS]):
        advice.row(row(step, rank))
    assert said == []
    for step in range(WINDOW, WINDOW + 3 * SLOW_ROWS):
        advice.row(row(step, 3))
    (text,) = said
    assert "wait for rank 3 on h" in text and "2.0 times" in text and "25%" in text
