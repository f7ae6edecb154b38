"""PTS shares against the formulas written anew in float64, and the integer form against its own sums."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unigeoseg.errors import UserError
from unigeoseg.schedules.pts import (
    SCALE,
    Phase,
    Schedule,
    build_curve,
    floor_sum,
    integer_shares,
    interactive_weight,
    task_shares,
)

KINDS = ("linear", "cosine", "step", "constant")


def independent_shares(p, base, kind, end, warmup=()):
    start = 0.0
    for until, shares in warmup:
        if p < until:
            return np.array(shares) / sum(shares)
        start = until
    p = (p - start) / (1 - start)
    w = {
        "linear": 1 - (1 - end) * p,
        "cosine": end + (1 - end) * 0.5 * (1 + math.cos(math.pi * p)),
        "step": 1.0 if p < 0.5 else end,
        "constant": 1.0,
    }[kind]
    s = np.array(base) / sum(base)
    return np.array([s[0] * w, s[1], s[2] + s[0] * (1 - w)])


def test_the_papers_ends():
    assert interactive_weight(0.0) == 1.0
    assert interactive_weight(1.0) == pytest.approx(0.7)
    natural = Schedule((480949, 560179, 119214))
    np.testing.assert_allclose(task_shares(0.0, natural), np.array([480949, 560179, 119214]) / 1160342)
    np.testing.assert_allclose(task_shares(1.0, natural).sum(), 1.0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("warmup", [(), ((0.1, (1.0, 0.0, 0.0)), (0.25, (4.0, 1.0, 1.0)))])
def test_float_and_integer_shares_equal_the_formula(kind, warmup):
    base, end, length = (480949.0, 560179.0, 119214.0), 0.6, 5000
    schedule = Schedule(base, kind, end, tuple(Phase(*w) for w in warmup))
    want = np.array([independent_shares(i / length, base, kind, end, warmup) for i in range(length)])
    got = np.array([task_shares(i / length, schedule) for i in range(length)])
    np.testing.assert_allclose(got, want, atol=1e-12)
    curve = build_curve(schedule, length)
    np.testing.assert_allclose(curve.window(0, length) / SCALE, want, atol=3e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_shares_over_instructions_become_shares_over_positions(kind):
    base, per_instruction = (5.0, 3.0, 2.0), (Fraction(1, 3), Fraction(1, 2), Fraction(7, 9))
    curve = build_curve(Schedule(base, kind), 3000, per_instruction)
    shares = curve.window(0, 3000) / SCALE / np.array([float(w) for w in per_instruction])
    shares /= shares.sum(axis=1, keepdims=True)
    want = np.array([independent_shares(i / 3000, base, kind, 0.7) for i in range(3000)])
    np.testing.assert_allclose(shares, want, atol=1e-6)


@given(
    kind=st.sampled_from(KINDS),
    base=st.tuples(*[st.integers(0, 10**7)] * 3).filter(any),
    end=st.floats(0, 1),
    length=st.integers(1, 3000),
    phases=st.lists(
        st.tuples(st.floats(0.01, 1), st.tuples(*[st.integers(0, 9)] * 3).filter(any)), max_size=2
    ),
)
@settings(max_examples=60, deadline=None)
def test_integer_shares_sum_exactly_and_prefix_sums_are_closed(kind, base, end, length, phases):
    warmup = tuple(Phase(until, shares) for until, shares in sorted(dict(phases).items()))
    curve = build_curve(Schedule(base, kind, end, warmup), length)
    window = curve.window(0, length + 50)
    assert (window >= 0).all()
    assert (window.sum(axis=1) == SCALE).all()
    sums = np.vstack([np.zeros((1, 3), np.int64), np.cumsum(window, axis=0)])
    for n in {0, 1, length // 3, length // 2, length - 1, length, length + 50}:
        assert curve.quota(n) == tuple(sums[n])
    for task in range(3):
        amount = int(sums[length // 2, task]) + 1
        n = curve.first_reaching(task, amount, 0)
        assert n > length + 50 or (sums[n, task] >= amount and sums[n - 1, task] < amount)


@given(st.integers(0, 60), st.integers(1, 50), st.integers(-90, 90))
@settings(max_examples=200, deadline=None)
def test_floor_sum(count, divisor, factor):
    assert floor_sum(count, divisor, factor) == sum(factor * i // divisor for i in range(count))


def test_natural_shares_come_from_the_counts_exactly():
    counts = (480949, 560179, 119214)
    shares = integer_shares(counts)
    assert sum(shares) == SCALE
    assert all(
        abs(Fraction(s, SCALE) - Fraction(n, sum(counts))) < Fraction(1, SCALE)
        for s, n in zip(shares, counts, strict=True)
    )


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Schedule((1, -1, 1)), "share of referring is -1"),
        (lambda: Schedule((0, 0, 0)), "all shares are zero"),
        (lambda: Schedule((1, math.nan, 1)), "referring"),
        (lambda: Schedule((1, 1, 1), end_weight=1.5), "negative"),
        (lambda: Schedule((1, 1, 1), warmup=(Phase(0.5, (1, 0, 0)), Phase(0.2, (1, 1, 1)))), "in order"),
        (lambda: Schedule((1, 1, 1), warmup=(Phase(0.5, (1, -2, 3)),)), "warmup"),
    ],
)
def test_bad_schedules_are_refused(make, says):
    with pytest.raises(UserError, match=says):
        make()
