"""Any span of a plan is what the whole has there, wherever the state is known and wherever it is not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.plan.chairman import assign, counts_at
from unigeoseg.schedules.pts import SCALE, Phase, Piece, Schedule, ShareCurve, build_curve
from unigeoseg.schedules.record import recorded_curve


@given(
    kind=st.sampled_from(("linear", "cosine", "step", "constant")),
    base=st.tuples(*[st.integers(0, 10**6)] * 3).filter(any),
    until=st.floats(0.01, 0.9),
    warm=st.tuples(*[st.integers(0, 3)] * 3).filter(any),
    begin=st.integers(0, 9000),
)
@settings(max_examples=40, deadline=None)
def test_a_span_is_what_the_whole_has_there(kind, base, until, warm, begin):
    curve = build_curve(Schedule(base, kind, 0.6, (Phase(until, warm),)), 12_000)
    whole = assign(curve, 0, begin + 6000, (0, 0, 0))
    assert counts_at(curve, begin) == tuple(np.bincount(whole[:begin], minlength=3))
    assert (assign(curve, begin, begin + 6000, counts_at(curve, begin)) == whole[begin:]).all()


@pytest.mark.parametrize("share", [(SCALE, 0, 0), (SCALE - 2, 1, 1), (SCALE - 1, 0, 1)])
def test_long_spans_without_a_known_state(share):
    """Two quotas that stay at a half: thousands of places in a row have no state of their own."""
    halves = (0, SCALE // 2, SCALE - SCALE // 2)
    curve = ShareCurve([Piece(0, 1, halves, halves), Piece(1, 9000, share, share)])
    want = assign(curve, 0, 9000, (0, 0, 0))
    counts = np.cumsum(want[:, None] == np.arange(3), axis=0)
    assert (4 * np.abs(counts * SCALE - np.cumsum(curve.window(0, 9000), axis=0)) <= 3 * SCALE).all()
    assert counts_at(curve, 8000) == tuple(counts[7999])


def test_any_cut_gives_the_same():
    curve = recorded_curve([(700, 200, 100), (11, 5000, 489), (2000, 2000, 1500)])
    whole = assign(curve, 0, 12_000, (0, 0, 0))
    for cut in (1, 999, 1000, 4097, 6500):
        parts = [assign(curve, a, b, counts_at(curve, a)) for a, b in ((0, cut), (cut, 12_000))]
        assert (np.concatenate(parts) == whole).all()
