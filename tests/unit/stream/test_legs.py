"""A chain of legs: the items of all in order, the next one started before the open one ends."""

import threading

import pytest

from pipelines.stream.legs import Leg, chained


class Legs:
    """Legs of numbers that record what is opened and closed."""

    def __init__(self, *counts):
        self.opened, self.closed = [], []
        self._starts = [sum(counts[:i]) for i in range(len(counts))]
        self.legs = [Leg(count, lambda i=i: self._items(i, counts[i])) for i, count in enumerate(counts)]
        self.began = [threading.Event() for _ in counts]

    def _items(self, number, count):
        self.opened.append(number)
        self.began[number].set()
        try:
            yield from range(self._starts[number], self._starts[number] + count)
        finally:
            self.closed.append(number)


@pytest.mark.parametrize("counts", [(), (1,), (5,), (3, 3, 1), (1, 1, 1, 1), (10, 2, 7)])
@pytest.mark.parametrize("ahead", [0, 1, 4, 100])
def test_all_items_in_order_and_two_legs_at_most(counts, ahead):
    legs = Legs(*counts)
    found = []
    for item in chained(legs.legs, ahead):
        found.append(item)
        assert len(legs.opened) - len(legs.closed) <= 2
    assert found == list(range(sum(counts)))
    assert legs.opened == legs.closed == list(range(len(counts)))


def test_the_next_leg_is_started_while_the_open_one_has_items_left():
    legs = Legs(10, 10)
    items = chained(legs.legs, ahead=3)
    for wanted in range(6):
        assert next(items) == wanted
    assert legs.opened == [0]
    next(items)  # three are left
    assert legs.began[1].wait(10)
    assert list(items) == list(range(7, 20))


def test_a_later_leg_s_error_comes_in_its_place():
    def broken():
        raise KeyError("second")
        yield

    legs = Legs(4)
    found = []
    with pytest.raises(KeyError, match="second"):
        for item in chained([*legs.legs, Leg(3, broken)], ahead=100):
            found.append(item)
    assert found == [0, 1, 2, 3]
    assert legs.closed == [0]


def test_leaving_early_closes_what_is_open():
    legs = Legs(6, 6, 6)
    items = chained(legs.legs, ahead=100)
    assert next(items) == 0
    assert legs.began[1].wait(10)
    items.close()
    assert 0 in legs.closed and 2 not in legs.opened


def test_each_leg_is_watched_before_it_is_waited_for():
    held = threading.Event()

    def slow():
        held.wait(10)
        yield 0

    seen = []

    def watch(started):
        seen.append(started.there(0.02))
        held.set()
        assert started.there(10)

    assert list(chained([Leg(1, slow), *Legs(2).legs], 0, watch)) == [0, 0, 1]
    assert seen[0] is False and len(seen) == 2
