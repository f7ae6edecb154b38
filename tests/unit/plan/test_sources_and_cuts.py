"""Shares by source, and images that are cut into other units at each pass: exact from any place on."""

import itertools
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.config import Config
from pipelines.plan import Plan
from pipelines.plan.turns import PERIOD, Turns
from pipelines.store.index import StoreIndex
from tests.tiny_store import write_store
from tests.unit.test_cli_errors import check, here
from unigeoseg.errors import UserError

SHARES = {"made": 1, "real": 3}


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """Two thirds of the images, with other numbers of samples, are of one source."""
    folder = write_store(tmp_path_factory.mktemp("store"), images=36, per_image=(9, 4, 2))
    plain = StoreIndex.open(str(folder))
    source = np.where(plain.images % 3 == 1, "real", "made")
    place = plain.table.schema.get_field_index("source")
    # Of the last task, one source has none.
    task = np.where((plain.tasks == 2) & (source == "real"), "referring", plain.table["task"].to_numpy())
    table = plain.table.set_column(place, "source", pa.array(source))
    table = table.set_column(table.schema.get_field_index("task"), "task", pa.array(task.astype(str)))
    return StoreIndex(plain.store, plain.split, table, plain.card)


def plan_of(index, steps=60, seed=0, pts=None, **data):
    values = {"name": "t", "seed": seed, "train": {"global_batch": 8, "steps": steps}, "data": data}
    return Plan.from_config(index, Config.model_validate(values | {"pts": pts or {}}))


@given(weights=st.lists(st.fractions(0, 1), min_size=1, max_size=5).filter(any))
@settings(max_examples=60, deadline=None)
def test_turns_keep_shares_in_every_prefix_and_number_each_stream_through(weights):
    turns = Turns(weights)
    assert sum(turns.counts) == PERIOD
    assert all(bool(count) == bool(weight) for count, weight in zip(turns.counts, weights, strict=True))
    if all(w == 0 or w * PERIOD >= sum(weights) for w in weights):
        total = sum(weights)
        assert all(abs(c - w * PERIOD / total) <= 1 for c, w in zip(turns.counts, weights, strict=True))
    who, rank = turns.at(np.arange(2 * PERIOD))
    for stream, count in enumerate(turns.counts):
        assert rank[who == stream].tolist() == list(range(2 * count))
        had = np.cumsum(who == stream)
        assert (
            np.abs(had * PERIOD - np.arange(1, 2 * PERIOD + 1) * count).max()
            <= (len(weights) + 1) / 2 * PERIOD
        )
    later = turns.at(np.arange(5000, 5010))
    assert (later[0] == who[5000:5010]).all() and (later[1] == rank[5000:5010]).all()


@pytest.mark.parametrize("per_image", [1, 4])
def test_sources_have_their_shares_of_the_samples_of_each_task(index, per_image):
    plan = plan_of(index, 1500, source_shares=SHARES, instructions_per_image=per_image)
    source = index.table["source"].to_numpy()
    rows = np.concatenate([plan.batch(step).rows for step in range(1500)])
    for task, expected in ((0, 0.75), (1, 0.75), (2, 0.0)):
        own = rows[index.tasks[rows] == task]
        assert np.mean(source[own] == "real") == pytest.approx(expected, abs=0.01)
        for name in ("made", "real"):  # each source's own passes, none drawn twice in one
            part = own[source[own] == name]
            count = int(((index.tasks == task) & (source == name)).sum())
            for begin in range(0, len(part), max(count, 1)):
                one = part[begin : begin + count].tolist()
                assert len(set(one)) == len(one)
    shares = np.bincount(index.tasks[rows], minlength=3) / len(rows)
    target = np.mean([plan.share_at(p) for p in range(0, 12000, 50)], axis=0)
    np.testing.assert_allclose(shares, target, atol=0.01)


def test_a_share_of_nothing_leaves_a_source_out(index):
    base = {"interactive": 1, "referring": 1, "reasoning": 0}
    pts = {"base": base, "schedule": "constant"}
    plan = plan_of(index, pts=pts, source_shares={"made": 0, "real": 2})
    rows = set(plan.units.rows.tolist())
    assert rows == set(np.flatnonzero(index.table["source"].to_numpy() == "real").tolist())
    only = plan_of(index, pts=pts, filters=[{"sources": ["real"]}])
    assert only.units.rows.tolist() == plan.units.rows.tolist()


@pytest.mark.parametrize(
    ("shares", "says"),
    [
        ({"made": 1}, r"says nothing of real \(\d+ samples\): give each a share"),
        ({"made": 1, "rael": 1}, "source 'rael'; did you mean real"),
        ({"made": 0, "real": 1}, r"source_shares, 0 for made, leaves no reasoning sample of the \d+"),
    ],
)
def test_sources_that_do_not_fit_are_refused(index, shares, says):
    with pytest.raises(UserError, match=says):
        plan_of(index, source_shares=shares)


def test_the_command_refuses_shares_of_nothing(tmp_path, capfd):
    store = write_store(tmp_path / "store", images=6)
    for value in ("{tiny: 0}", "{tiny: -1}"):
        done = here(
            capfd, "plan", "--store", str(store), "--preset", "small", "--set", f"data.source_shares={value}"
        )
        check(done, 2, "source_shares")


def groups(index, plan, task, steps):
    """A task's units, in order, as sets of rows."""
    batches = [plan.batch(step) for step in range(steps)]
    return [frozenset(u) for b in batches for t, u in zip(b.tasks, b.units, strict=True) if t == task]


def test_each_pass_cuts_images_anew_and_holds_every_sample_once(index):
    plan = plan_of(index, 400, instructions_per_image=4, recut=True)
    fixed = plan_of(index, 400, instructions_per_image=4)
    before = groups(index, fixed, 0, 400)
    count = fixed.units.count(0)
    assert plan.units.count(0) == count and before[:count] != before[count : 2 * count]
    assert set(before[:count]) == set(before[count : 2 * count]), "without it the same ones always meet"
    drawn = groups(index, plan, 0, 400)
    passes = [drawn[i * count : (i + 1) * count] for i in range(len(drawn) // count)]
    assert len(passes) > 5
    every = sorted(np.flatnonzero(index.tasks == 0).tolist())
    for one in passes:
        assert sorted(row for unit in one for row in unit) == every
        assert all(len(set(index.images[list(unit)].tolist())) == 1 for unit in one)
        assert sorted(map(len, one)) == sorted(map(len, before[:count]))
    again = [len(set(one) & set(other)) for one, other in itertools.pairwise(passes)]
    assert max(again) < 0.2 * count
    # The pairs that meet are not the same few: after some passes nearly all pairs of an image have met.
    image = index.images[every[0]]
    rows = [row for row in every if index.images[row] == image]
    met = {frozenset((a, b)) for one in passes for u in one for a in u for b in u if a in rows and a != b}
    assert len(met) > 0.8 * len(rows) * (len(rows) - 1) / 2


@pytest.mark.parametrize("shares", [{}, SHARES])
@pytest.mark.parametrize("warm", [False, True])
def test_any_part_of_a_recut_plan_is_that_part_of_the_whole(index, shares, warm):
    phase = {"until": 0.5, "shares": {"interactive": 1}, "filters": [{"max_area": 0.06}]}
    settings = {
        "pts": {"warmup": [phase] if warm else []},
        "source_shares": shares,
        "instructions_per_image": 4,
        "recut": True,
    }
    plan, other = plan_of(index, 200, **settings), plan_of(index, 200, **settings)
    assert plan.fingerprint == other.fingerprint
    whole = plan.positions(0, 1600)
    for begin, end in ((0, 9), (795, 805), (1200, 1201), (1592, 1600)):
        assert other.positions(begin, end).units == whole.units[begin:end]
        stand_ins = [plan.substitute(begin, 0, attempt) for attempt in range(3)]
        assert stand_ins == [other.substitute(begin, 0, attempt) for attempt in range(3)]
        assert {int(index.tasks[row]) for row in stand_ins} == {int(whole.tasks[begin])}
    parts = [other.rank_slice(100, rank, 4).units for rank in range(4)]
    assert [unit for part in parts for unit in part] == plan.batch(100).units
    assert plan_of(index, 200, seed=1, **settings).batch(100).units != plan.batch(100).units


def test_fingerprints_tell_and_settings_without_effect_do_not(index):
    plain = plan_of(index).fingerprint
    assert plan_of(index, recut=True).fingerprint == plain  # a unit is one sample
    changed = [
        plan_of(index, instructions_per_image=4),
        plan_of(index, instructions_per_image=4, recut=True),
        plan_of(index, source_shares=SHARES),
        plan_of(index, source_shares={"made": 1, "real": 2}),
    ]
    assert len({plain, *(plan.fingerprint for plan in changed)}) == 5
    same = plan_of(index, source_shares={"real": 1.5, "made": 0.5})
    assert same.fingerprint == changed[2].fingerprint and same.batch(9).units == changed[2].batch(9).units


def test_positions_for_a_sample_follow_the_mixture(index):
    plan = plan_of(index, 800, source_shares=SHARES, instructions_per_image=4)
    batch = plan.positions(0, 6400)
    for task in range(2):
        mine = batch.tasks == task
        drawn = Fraction(int(mine.sum()), int(np.diff(batch.splits)[mine].sum()))
        assert float(drawn) == pytest.approx(float(plan.pool.per_sample(task)), rel=0.02)
