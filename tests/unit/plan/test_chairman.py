"""The assignment of tasks against a brute-force Tijdeman in exact fractions, and its bound."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.plan.chairman import assign, counts_at
from unigeoseg.schedules.pts import SCALE, Phase, Schedule, build_curve

KINDS = ("linear", "cosine", "step", "constant")
WARMUP = (Phase(0.1, (1.0, 0.0, 0.0)), Phase(0.25, (4.0, 1.0, 1.0)))


def brute_force(curve, length):
    """Tijdeman's rule, literally: quotas summed as fractions, deadlines found by walking on."""
    horizon = length + 1500
    shares = [[Fraction(int(v), SCALE) for v in row] for row in curve.window(0, horizon)]
    quota = [[Fraction(0)] * 3]
    for row in shares:
        quota.append([a + b for a, b in zip(quota[-1], row, strict=True)])
    counts, out = [0, 0, 0], []
    for j in range(1, length + 1):
        allowed = [t for t in range(3) if quota[j][t] - counts[t] >= Fraction(1, 4)]

        def deadline(t, j=j):
            return next((k for k in range(j, horizon) if quota[k][t] - counts[t] >= Fraction(3, 4)), horizon)

        chosen = min(allowed, key=deadline)
        counts[chosen] += 1
        out.append(chosen)
    return out


@given(
    kind=st.sampled_from(KINDS),
    base=st.tuples(*[st.integers(0, 200)] * 3).filter(any),
    warm=st.booleans(),
    length=st.integers(1, 120),
)
@settings(max_examples=40, deadline=None)
def test_equals_brute_force(kind, base, warm, length):
    curve = build_curve(Schedule(base, kind, 0.7, WARMUP if warm else ()), length)
    assert assign(curve, 0, length, (0, 0, 0)).tolist() == brute_force(curve, length)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("warmup", [(), WARMUP])
@pytest.mark.parametrize("base", [(480949, 560179, 119214), (1, 1, 1), (1, 0, 0), (999999, 1, 1), (0, 1, 1)])
def test_every_prefix_is_within_three_quarters(kind, warmup, base):
    length = 30_000
    curve = build_curve(Schedule(base, kind, 0.7, warmup), length)
    tasks = assign(curve, 0, length, (0, 0, 0))
    counts = np.cumsum(tasks[:, None] == np.arange(3), axis=0)
    # In integers: 4 SCALE |count - quota| <= 3 SCALE.
    assert (4 * np.abs(counts * SCALE - np.cumsum(curve.window(0, length), axis=0)) <= 3 * SCALE).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("base", [(480949, 560179, 119214), (1, 1, 0), (1, 0, 0)])
@pytest.mark.parametrize("warmup", [(), WARMUP])
def test_state_and_tail_from_anywhere(kind, base, warmup):
    length = 20_000
    curve = build_curve(Schedule(base, kind, 0.7, warmup), length)
    tasks = assign(curve, 0, length, (0, 0, 0))
    counts = np.vstack([np.zeros((1, 3), int), np.cumsum(tasks[:, None] == np.arange(3), axis=0)])
    for n in (0, 1, 2, 1999, 2000, 5000, 12_345, 19_999, length):
        assert counts_at(curve, n) == tuple(counts[n])
        end = min(n + 500, length)
        if end > n:
            assert (assign(curve, n, end, counts_at(curve, n)) == tasks[n:end]).all()


def test_far_positions_cost_no_walk():
    """Position 10^12 is answered from its surroundings; a walk from 0 would take hours."""
    curve = build_curve(Schedule((480949, 560179, 119214)), 3 * 10**12)
    counts = counts_at(curve, 10**12)
    quota = curve.quota(10**12)
    assert sum(counts) == 10**12
    assert all(4 * abs(c * SCALE - q) <= 3 * SCALE for c, q in zip(counts, quota, strict=True))
