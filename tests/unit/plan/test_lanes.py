"""Many lanes side by side give what one by one gives, wherever the state is known and wherever it is not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.plan import chairman
from pipelines.plan.chairman import assign, counts_at
from unigeoseg.schedules.pts import SCALE, Phase, Piece, Schedule, ShareCurve, build_curve
from unigeoseg.schedules.record import recorded_curve


def slowly(monkeypatch, curve, begin, end):
    with monkeypatch.context() as patch:
        patch.setattr(chairman, "_SIDE_BY_SIDE_FROM", 1 << 62)
        return assign(curve, begin, end, counts_at(curve, begin))


@given(
    kind=st.sampled_from(("linear", "cosine", "step", "constant")),
    base=st.tuples(*[st.integers(0, 10**6)] * 3).filter(any),
    until=st.floats(0.01, 0.9),
    warm=st.tuples(*[st.integers(0, 3)] * 3).filter(any),
    begin=st.integers(0, 9000),
)
@settings(max_examples=40, deadline=None)
def test_equals_one_by_one(kind, base, until, warm, begin):
    curve = build_curve(Schedule(base, kind, 0.6, (Phase(until, warm),)), 12_000)
    with pytest.MonkeyPatch.context() as monkeypatch:
        want = slowly(monkeypatch, curve, begin, begin + 6000)
    assert (assign(curve, begin, begin + 6000, counts_at(curve, begin)) == want).all()


@pytest.mark.parametrize("share", [(SCALE, 0, 0), (SCALE - 2, 1, 1), (SCALE - 1, 0, 1)])
def test_long_spans_without_a_known_state(monkeypatch, share):
    """Two quotas that stay at a half: thousands of places in a row have no state of their own."""
    halves = (0, SCALE // 2, SCALE - SCALE // 2)
    curve = ShareCurve([Piece(0, 1, halves, halves), Piece(1, 9000, share, share)])
    want = slowly(monkeypatch, curve, 0, 9000)
    assert (assign(curve, 0, 9000, (0, 0, 0)) == want).all()
    counts = np.cumsum(want[:, None] == np.arange(3), axis=0)
    assert (4 * np.abs(counts * SCALE - np.cumsum(curve.window(0, 9000), axis=0)) <= 3 * SCALE).all()
    assert counts_at(curve, 8000) == tuple(counts[7999])


def test_any_cut_gives_the_same(monkeypatch):
    curve = recorded_curve([(700, 200, 100), (11, 5000, 489), (2000, 2000, 1500)])
    whole = slowly(monkeypatch, curve, 0, 12_000)
    for cut in (1, 999, 1000, 4097, 6500):
        parts = [assign(curve, a, b, counts_at(curve, a)) for a, b in ((0, cut), (cut, 12_000))]
        assert (np.concatenate(parts) == whole).all()
