"""Micro-batches into steps, and the look at the step that comes next."""

import pytest

from pipelines.stream.stream import StreamItem, StreamStats
from pipelines.train.loop.step_input import Steps


class _Batch:
    def __init__(self, number):
        self.sample_ids = [f"s{number}"]


def _stream(steps, micros, asked):
    stats = StreamStats()
    for number in range(steps * micros):
        asked.append(number)
        step, micro = divmod(number, micros)
        yield StreamItem(step, micro, _Batch(number), 1.0, stats, [number])


@pytest.mark.parametrize("looks", [set(), {0}, {0, 1, 2}])
def test_each_step_comes_once_whether_or_not_it_was_looked_at(looks):
    asked: list[int] = []
    steps, found = Steps(_stream(3, 2, asked), 2), []
    for item in steps:
        assert len(asked) == 2 * (item.step + 1)  # nothing is taken before it is asked for
        found.append((item.step, item.sample_ids, item.events, item.wait))
        if item.step in looks:
            after = steps.following()
            assert after is steps.following()
            assert (after and after.sample_ids) == ([f"s{len(asked) - 2}"] if item.step < 2 else None)
    ids = [[f"s{2 * step}", f"s{2 * step + 1}"] for step in range(3)]
    # The wait for a step that was looked at was that look's.
    waits = [0.0 if step - 1 in looks else 2.0 for step in range(3)]
    assert found == [(step, ids[step], [2 * step, 2 * step + 1], waits[step]) for step in range(3)]
