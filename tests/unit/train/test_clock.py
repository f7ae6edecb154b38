"""Times of a step's parts: the host's where calls do their work, the stream's where they queue it."""

import time

import pytest
import torch

from pipelines.train.engine.clock import StepClock, event_of
from pipelines.train.engine.step import StepSeconds


class _Stream:
    """A device that does what is queued later: each piece of work takes its time on its own clock."""

    def __init__(self):
        self.now, self.waited = 0.0, []

    def work(self, milliseconds):
        self.now += milliseconds

    def event(self):
        stream = self

        class Event:
            at = None

            def record(self):
                self.at = stream.now

            def synchronize(self):
                stream.waited.append(self.at)

            def elapsed_time(self, later):
                return later.at - self.at

        return Event()


def test_a_queue_is_timed_by_its_own_events_and_waited_for_once():
    stream = _Stream()
    clock = StepClock(0.5, stream.event)
    for forward, backward in ((10.0, 20.0), (30.0, 40.0)):
        with clock.part("forward"):
            stream.work(forward)
        stream.work(1000.0)  # between the parts: nobody's
        with clock.part("backward"):
            stream.work(backward)
    assert not stream.waited, "a look at the device in the middle of a step"
    found = clock.seconds()
    assert found == StepSeconds(wait=0.5, forward=0.04, backward=0.06)
    assert stream.waited == [stream.now]
    assert clock.seconds() == found


def test_without_a_queue_the_hosts_clock_counts():
    clock = StepClock(0.0, event_of(torch.device("cpu")))
    began = time.perf_counter()
    for _ in range(2):
        with clock.part("optimizer"):
            time.sleep(0.02)
    took = time.perf_counter() - began
    found = clock.seconds()
    assert 0.04 <= found.optimizer <= took and found.forward == found.backward == 0


def test_a_part_that_fails_leaves_its_error():
    clock = StepClock(0.0, None)
    with pytest.raises(KeyError), clock.part("forward"):
        raise KeyError


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpus_times_are_those_of_its_work():
    device = torch.device("cuda")
    matrix = torch.randn(4096, 4096, device=device)
    torch.cuda.synchronize()
    clock = StepClock(0.0, event_of(device))
    began = time.perf_counter()
    with clock.part("forward"):
        for _ in range(50):
            matrix = matrix @ matrix / 64
    queued = time.perf_counter() - began
    assert clock.seconds().forward > queued
