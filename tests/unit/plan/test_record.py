"""Recorded adaptive shares: exact sums, the bound across segments, and no effect of what comes later."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.config import Config
from pipelines.plan import Plan
from pipelines.plan.chairman import assign, counts_at
from pipelines.store.index import StoreIndex
from tests.tiny_store import write_store
from tests.unit.plan.test_chairman import brute_force
from unigeoseg.errors import UserError
from unigeoseg.schedules.pts import SCALE
from unigeoseg.schedules.record import recorded_curve, segment_counts

segments = st.lists(st.tuples(*[st.integers(0, 60)] * 3).filter(any), min_size=1, max_size=5)


@given(segments)
@settings(max_examples=80, deadline=None)
def test_each_segment_draws_exactly_its_counts_and_every_prefix_its_quota(record):
    curve = recorded_curve(record)
    tasks = assign(curve, 0, curve.length, (0, 0, 0))
    drawn = np.vstack([np.zeros((1, 3), int), np.cumsum(tasks[:, None] == np.arange(3), axis=0)])
    quota = np.vstack([np.zeros((1, 3), int), np.cumsum(curve.window(0, curve.length), axis=0)])
    assert (4 * np.abs(drawn * SCALE - quota) <= 3 * SCALE).all()
    end = np.zeros(3, int)
    for counts in record:
        end += counts
        assert (drawn[end.sum()] == end).all()
        assert counts_at(curve, int(end.sum())) == tuple(end)
    # Within a segment the shares are level: no position is further than one unit from the mean.
    first = curve.window(0, sum(record[0]))
    mean = [Fraction(SCALE * n, sum(record[0])) for n in record[0]]
    assert all(abs(int(v) - m) < 2 for row in first for v, m in zip(row, mean, strict=True))


@given(segments)
@settings(max_examples=15, deadline=None)
def test_equals_brute_force(record):
    curve = recorded_curve(record)
    length = min(curve.length, 150)
    assert assign(curve, 0, length, (0, 0, 0)).tolist() == brute_force(curve, length)


@given(segments, segments)
@settings(max_examples=60, deadline=None)
def test_what_is_drawn_does_not_change_when_segments_are_added(record, later):
    short, long = recorded_curve(record), recorded_curve([*record, *later])
    length = short.length
    assert (assign(short, 0, length, (0, 0, 0)) == assign(long, 0, length, (0, 0, 0))).all()


def test_shares_become_whole_positions():
    assert segment_counts((1, 1, 1), 100) == (34, 33, 33)
    assert segment_counts((0.5, 0.0, 0.5), 7) == (4, 0, 3)
    assert sum(segment_counts((480949, 560179, 119214), 1601)) == 1601


def test_plan_follows_the_record(tmp_path):
    index = StoreIndex.open(str(write_store(tmp_path)))
    config = Config.model_validate({"name": "t", "train": {"global_batch": 8, "steps": 30}})
    one = Plan.recorded(index, config, [(40, 24, 16)])
    two = Plan.recorded(index, config, [(40, 24, 16), (10, 10, 140)])
    for step in range(10):
        assert one.batch(step).rows.tolist() == two.batch(step).rows.tolist()
    assert one.fingerprint != two.fingerprint
    assert two.counts_at(240) == (50, 34, 156)
    assert Plan.recorded(index, config, [(40, 24, 16), (10, 10, 140)]).fingerprint == two.fingerprint


def test_a_configuration_replays_a_record(tmp_path):
    index = StoreIndex.open(str(write_store(tmp_path)))
    record = [(40, 24, 16), (10, 10, 140)]
    values = {"name": "t", "train": {"global_batch": 8, "steps": 30}}
    replay = Config.model_validate(values | {"pts": {"schedule": "recorded", "record": record}})
    wanted = Plan.recorded(index, Config.model_validate(values), record)
    found = Plan.from_config(index, Config.model_validate(replay.plain()))
    assert found.fingerprint == wanted.fingerprint
    assert found.batch(29).rows.tolist() == wanted.batch(29).rows.tolist()


@pytest.mark.parametrize(
    ("pts", "says"),
    [
        ({"schedule": "recorded"}, "needs pts.record"),
        ({"record": [(1, 1, 1)]}, "use recorded"),
        ({"schedule": "recorded", "record": [(1, -1, 1)]}, "greater than or equal to 0"),
        (
            {"schedule": "recorded", "record": [(1, 1, 1)], "warmup": [{"until": 0.1, "shares": {}}]},
            "leave pts.warmup out",
        ),
    ],
)
def test_configurations_that_do_not_fit(pts, says):
    with pytest.raises(ValueError, match=says):
        Config.model_validate({"name": "t", "pts": pts})


@pytest.mark.parametrize(
    ("record", "says"),
    [([], "no segment"), ([(0, 0, 0)], "segment 0"), ([(1, 1, 1), (2, -1, 3)], "segment 1")],
)
def test_records_that_do_not_fit(record, says):
    with pytest.raises(UserError, match=says):
        recorded_curve(record)


def test_negative_shares_are_refused():
    with pytest.raises(UserError, match="share of referring is -1"):
        segment_counts((1, -1, 1), 10)
