"""The rate of a loader does not depend on what it had prepared before, nor on how its deliveries bunch."""

import pytest

from pipelines.bench import loaders
from pipelines.bench.loaders import Clock, count_batches
from unigeoseg.errors import UserError


def rate(monkeypatch, arrivals, size=10):
    """Images a second of deliveries of ``size`` images at these times."""
    times = iter(arrivals)
    monkeypatch.setattr(loaders.time, "perf_counter", lambda: next(times))
    clock = Clock()
    for _ in arrivals:
        clock.mark()
        clock.images += size
    found = clock.measured()
    return found.images / found.seconds


@pytest.mark.parametrize("count", [8, 9, 16, 40, 100])
def test_a_steady_loader(monkeypatch, count):
    assert rate(monkeypatch, [0.5 * i for i in range(count)]) == pytest.approx(20)


@pytest.mark.parametrize("workers", [2, 4])
def test_workers_that_deliver_together(monkeypatch, workers):
    assert rate(monkeypatch, [float(i // workers) for i in range(64)]) == pytest.approx(10 * workers)


@pytest.mark.parametrize("ready", [1, 3, 8])
def test_deliveries_that_were_ready_do_not_count(monkeypatch, ready):
    assert rate(monkeypatch, [0.0] * ready + [float(i) for i in range(1, 60)]) == pytest.approx(10)


def test_too_few_deliveries_are_refused():
    with pytest.raises(UserError, match="48 images came in 3 deliveries"):
        count_batches([(range(16), None)] * 3)
