"""Shares by learning progress against an exact solution, their bounds, and the record that a run makes."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.config import Config
from pipelines.plan import Plan
from pipelines.store.index import StoreIndex
from pipelines.train.engine.step import StepResult, StepSeconds
from pipelines.train.loop.adaptive import AdaptiveShares
from tests.tiny_store import write_store
from unigeoseg.errors import UserError
from unigeoseg.schedules.adaptive import adapted_shares, learning_progress
from unigeoseg.tasks import TASKS

share = st.floats(0.01, 1)
rate = st.one_of(st.none(), st.just(0.0), st.floats(1e-4, 1))


def exact(base, factors, low, high):
    """The bounded shares by walking over the levels at which a bound is met: between two, all is linear."""
    base, factors = np.asarray(base, np.float64), np.asarray(factors, np.float64)
    moving = factors > 0
    levels = np.sort(np.concatenate([[0.0], low / factors[moving], high / factors[moving]]))
    sums = [float((base * np.clip(level * factors, low, high)).sum()) for level in levels]
    if sums[-1] < 1:
        at = base * np.clip(levels[-1] * factors, low, high)
        room = high * base - at
        return at + (1 - sums[-1]) * room / room.sum() if high > 1 else base
    k = next(i for i, s in enumerate(sums) if s >= 1)
    level = levels[k] if k == 0 else np.interp(1.0, sums[k - 1 : k + 1], levels[k - 1 : k + 1])
    return base * np.clip(level * factors, low, high)


@given(
    st.tuples(share, share, share),
    st.tuples(rate, rate, rate),
    st.floats(0, 1),
    st.floats(1, 4),
    st.floats(0, 0.9),
)
@settings(max_examples=300, deadline=None)
def test_shares_are_the_exact_ones_within_their_bounds(base, progress, low, high, smoothing):
    whole = np.asarray(base) / sum(base)
    measured = [p for p in progress if p is not None]
    mean = np.mean(measured) if measured else 0.0
    factors = [1.0 if p is None or mean == 0 else p / mean for p in progress]
    wanted = smoothing * whole + (1 - smoothing) * exact(whole, factors, low, high)
    found = np.asarray(adapted_shares(base, base, progress, low, high, smoothing))
    assert found == pytest.approx(wanted, rel=1e-6, abs=1e-9)
    assert found.sum() == pytest.approx(1, abs=1e-12)
    assert (found >= low * whole - 1e-9).all() and (found <= high * whole + 1e-9).all()


def test_by_hand():
    even = (1, 1, 1)
    # Twice as fast as the two others: 1/2, 1/4, 1/4 where the bounds allow it.
    assert adapted_shares(even, even, (0.2, 0.1, 0.1), 0.5, 2, 0) == pytest.approx((0.5, 0.25, 0.25))
    assert adapted_shares(even, even, (0.2, 0.1, 0.1), 0.5, 2, 0.5) == pytest.approx((5 / 12, 7 / 24, 7 / 24))
    assert adapted_shares(even, even, (0.2, 0.1, 0.1), 0.5, 1.2, 0) == pytest.approx((0.4, 0.3, 0.3))
    assert adapted_shares(even, even, (0.0, 0.0, 0.0), 0.5, 2, 0) == pytest.approx((1 / 3, 1 / 3, 1 / 3))
    assert adapted_shares((0, 3, 1), (0, 3, 1), (None, 0.1, 0.1), 0.5, 2, 0) == pytest.approx((0, 0.75, 0.25))
    assert adapted_shares(even, even, (0.3, 0.0, 0.0), 0.5, 1.2, 0) == pytest.approx((0.4, 0.3, 0.3))


def test_progress_is_the_relative_fall():
    assert learning_progress(2.0, 1.5) == 0.25
    assert learning_progress(1.0, 1.5) == 0.0
    assert learning_progress(None, 1.0) is None and learning_progress(1.0, None) is None
    assert learning_progress(0.0, 0.0) == 0.0


@pytest.mark.parametrize(
    ("change", "says"),
    [({"low": 1.5}, "bounds"), ({"high": 0.5}, "bounds"), ({"smoothing": 1.0}, "smoothing")],
)
def test_settings_out_of_their_range(change, says):
    with pytest.raises(UserError, match=says):
        adapted_shares((1, 1, 1), (1, 1, 1), (0.1, 0.1, 0.1), **change)


def _config(**pts):
    values = {"name": "t", "train": {"global_batch": 8, "steps": 44}, "data": {"instructions_per_image": 2}}
    adaptive = {"segment_steps": 8}
    return Config.model_validate(values | {"pts": {"schedule": "adaptive", "adaptive": adaptive, **pts}})


def _result(step, counts, rates):
    sums = {t: n * (1 - r) ** step for t, n, r in zip(TASKS, counts, rates, strict=True)}
    return StepResult(
        step=step, loss=1.0, parts={}, task_sums=sums, task_counts=dict(zip(TASKS, counts, strict=True)),
        watched={}, lr=0.1, grad_norm=1.0, grad_norms={}, images=8, tokens=8, seconds=StepSeconds(),
    )  # fmt: skip


def _drive(shares, start, steps, rates, stop=None):
    """Feeds losses that fall at fixed rates, batch by batch of the growing plan."""
    plan = shares.plan()
    for step in range(start, stop or steps):
        if shares.end <= step:
            shares.extend(steps - step)
            plan = shares.plan()
        counts = np.bincount(plan.batch(step).row_tasks, minlength=3).tolist()
        shares.add(_result(step, counts, rates))
    return shares


@pytest.mark.parametrize("warmup", [[], [{"until": 0.25, "shares": {"interactive": 1}}]])
def test_the_record_grows_follows_the_faster_task_and_replays(tmp_path, warmup):
    index = StoreIndex.open(str(write_store(tmp_path)))
    config = _config(warmup=warmup)
    beginning = Plan.from_config(index, config)
    shares = _drive(AdaptiveShares(config, index), 0, 44, (0.0, 0.001, 0.01))
    assert shares.end == 44 and all(sum(s) % 8 == 0 for s in shares.segments)
    first = shares.plan()
    at = [first.share_at((shares.end - 1) * 8), beginning.share_at(beginning.curve.length - 1)]
    assert at[0][2] > at[1][2] and at[0][0] < at[1][0]
    # Whole positions of a short segment: up to one of 32 more or less than the bounds of 0.5 and 2.
    assert (at[0] >= 0.5 * at[1] - 1 / 32).all() and (at[0] <= 2 * at[1] + 1 / 32).all()
    for step in range(beginning.curve.length // 8):
        assert first.batch(step).rows.tolist() == beginning.batch(step).rows.tolist()
    replay = Plan.from_config(index, Config.model_validate(shares.config.plain()))
    assert replay.fingerprint == first.fingerprint
    assert [replay.batch(s).rows.tolist() for s in range(44)] == [
        first.batch(s).rows.tolist() for s in range(44)
    ]
    if warmup:
        assert shares.segments[0] == (88, 0, 0), "the phase lasts 11 steps"


@pytest.mark.parametrize("cut", [8, 13, 16])
def test_a_state_read_back_goes_on_alike(tmp_path, cut):
    index = StoreIndex.open(str(write_store(tmp_path)))
    config, rates = _config(), (0.002, 0.0, 0.01)
    whole = _drive(AdaptiveShares(config, index), 0, 44, rates)
    half = _drive(AdaptiveShares(config, index), 0, 44, rates, stop=cut)
    state = json.loads(json.dumps(half.state()))
    assert _drive(AdaptiveShares(config, index, state), cut, 44, rates).segments == whole.segments
