"""A run's quarantine: one list and verdict of all ranks, whatever their number, and after a resume too."""

import json
from types import SimpleNamespace

import pytest

from pipelines.runs.folder import RunFolder
from pipelines.stream.quarantine import BadSampleEvent
from pipelines.train.loop.bad_samples import QUARANTINE, RunQuarantine
from unigeoseg.errors import UserError


class _Engine:
    """The one rank that writes; what others gathered is given to ``take`` by the test."""

    rank = 0

    def gather(self, value):
        return [value]


def plan(samples=3000):
    return SimpleNamespace(units=SimpleNamespace(samples=lambda task: samples // 3))


def event(name, position):
    return BadSampleEvent(name, "text", "no text", position, f"instead of {name}")


def opened(folder, start=0, max_share=0.002):
    return RunQuarantine(_Engine(), plan(), RunFolder(folder), max_share, start)


def listed(folder):
    return [json.loads(line) for line in (folder / QUARANTINE).read_text().splitlines()]


#: Step, samples seen at its end, and the bad samples in plan order with the half of the batch they are in.
STEPS = [
    (3, 32, [("a", 24, 0), ("b", 30, 1)]),
    (5, 48, [("a", 41, 0)]),
]


@pytest.mark.parametrize("world", [1, 2])
def test_the_list_is_the_same_for_any_number_of_ranks(tmp_path, world):
    quarantine = opened(tmp_path)
    ranks = [
        [
            (step, seen, [event(n, p) for n, p, half in found if world == 1 or half == rank])
            for step, seen, found in STEPS
        ]
        for rank in range(world)
    ]
    quarantine.take([[met for met in part if met[2]] for part in ranks])
    quarantine.close()
    assert quarantine.count == 2
    assert [(row["step"], row["sample_id"], row["position"]) for row in listed(tmp_path)] == [
        (3, "a", 24),
        (3, "b", 30),
    ]


def test_too_many_stop_the_run_and_are_listed(tmp_path):
    quarantine = opened(tmp_path)
    bad = [event(name, i) for i, name in enumerate("abc")]
    with pytest.raises(
        UserError, match=r"(?s)3 unusable samples, more than the 2 .*quarantine.jsonl.*c: text"
    ):
        quarantine.take([[(0, 16, bad[:2])], [(0, 16, bad[2:])]])
    quarantine.close()
    assert [row["sample_id"] for row in listed(tmp_path)] == ["a", "b", "c"]


def test_a_resumed_run_knows_the_bad_samples_before_its_checkpoint(tmp_path):
    quarantine = opened(tmp_path)
    quarantine.take([[(1, 16, [event("a", 3)]), (4, 40, [event("b", 33)])]])
    quarantine.close()
    again = opened(tmp_path, start=4)  # step 4 is replayed
    assert again.count == 1
    again.take([[(4, 40, [event("b", 33)])]])
    with pytest.raises(UserError, match="3 unusable samples"):
        again.take([[(6, 56, [event("c", 50)])]])
    again.close()
    assert [row["sample_id"] for row in listed(tmp_path)] == ["a", "b", "c"]
