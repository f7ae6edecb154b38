"""Filters over the index: what stays, what warm-up phases draw, what is refused; nothing else moves."""

import hashlib
import json

import numpy as np
import pyarrow as pa
import pytest
import yaml

from pipelines.config import Config
from pipelines.config.data import SampleFilter
from pipelines.plan import Plan
from pipelines.plan.filters import filtered
from pipelines.plan.plan import VERSION
from pipelines.store.index import StoreIndex
from pipelines.train.loop.adaptive import AdaptiveShares
from tests.tiny_store import write_store
from tests.unit.test_cli_errors import check, here
from unigeoseg.errors import UserError

BATCH, STEPS = 8, 60
BOTH = {"pts": {"schedule": "constant"}}


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """A store whose rows differ in all that filters ask for."""
    plain = StoreIndex.open(str(write_store(tmp_path_factory.mktemp("store"), images=40)))
    table, rng = plain.table, np.random.default_rng(1)
    n = len(table)
    image = plain.images
    new = {
        "mask_area": rng.integers(1, 1000, n),
        "subtask": np.where(rng.random(n) < 0.5, "box", "point"),
        "category_id": rng.integers(1, 5, n),
        "source": np.where(image % 3 == 0, "made", "real"),
    }
    new["box_area"] = new["mask_area"] + rng.integers(0, 1000, n)
    new["category"] = np.array(["", "Building", "Road", "Ship", "Lake"])[new["category_id"]]
    for name, values in new.items():
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, pa.array(values))
    return StoreIndex(plain.store, plain.split, table, plain.card)


def config(**sections):
    values = {"name": "t", "train": {"global_batch": BATCH, "steps": STEPS}}
    return Config.model_validate(values | sections)


def drawn(plan, begin=0, end=STEPS):
    return np.concatenate([plan.batch(step).rows for step in range(begin, end)])


def column(index, name):
    return index.table[name].to_numpy()


EXPECTED = {
    "area": ({"min_area": 0.1, "max_area": 0.4}, lambda i: (share(i) >= 0.1) & (share(i) <= 0.4)),
    "fill": ({"min_fill": 0.5}, lambda i: column(i, "mask_area") / column(i, "box_area") >= 0.5),
    "loose": ({"max_fill": 0.6}, lambda i: column(i, "mask_area") / column(i, "box_area") <= 0.6),
    "subtask": ({"subtasks": ["box"]}, lambda i: column(i, "subtask") == "box"),
    "category": ({"categories": ["Ship", 1]}, lambda i: np.isin(column(i, "category_id"), [3, 1])),
    "source": ({"sources": ["real"]}, lambda i: column(i, "source") == "real"),
}


def share(index):
    return column(index, "mask_area") / (column(index, "height") * column(index, "width"))


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.parametrize("per_image", [1, 3])
def test_a_filter_leaves_exactly_what_it_says(index, name, per_image):
    criteria, expected = EXPECTED[name]
    plan = Plan.from_config(index, config(data={"filters": [criteria], "instructions_per_image": per_image}))
    assert set(plan.units.rows.tolist()) == set(np.flatnonzero(expected(index)).tolist())
    assert set(drawn(plan).tolist()) <= set(plan.units.rows.tolist())
    only = config(
        data={"filters": [criteria | {"tasks": ["referring"]}], "instructions_per_image": per_image}
    )
    kept = np.flatnonzero((index.tasks != 1) | expected(index))
    assert sorted(Plan.from_config(index, only).units.rows.tolist()) == kept.tolist()


def test_all_filters_must_hold_and_regions_alone_are_measured(index):
    two = [SampleFilter(min_fill=0.5), SampleFilter(min_area=0.2, sources=("made",))]
    chosen = filtered(index, two, "data.filters").index
    expected = EXPECTED["fill"][1](index) & (share(index) >= 0.2) & (column(index, "source") == "made")
    assert ((chosen.tasks >= 0) == expected).all()
    area = column(index, "mask_area").copy()
    area[5] = 0
    place = index.table.schema.get_field_index("mask_area")
    empty = StoreIndex("s", "train", index.table.set_column(place, "mask_area", pa.array(area)), {})
    assert filtered(empty, [SampleFilter(min_area=0.9)], "f").index.tasks[5] == index.tasks[5]


WARM = [
    {"until": 0.2, "shares": {"interactive": 1}, "filters": [{"min_fill": 0.6}]},
    {"until": 0.4, "shares": {"interactive": 2, "referring": 1}, "filters": [{"min_fill": 0.6}]},
    {"until": 0.5, "shares": {"interactive": 1, "referring": 1, "reasoning": 1}},
]


@pytest.mark.parametrize("per_image", [1, 3])
def test_a_phase_draws_its_own_samples_and_the_rest_begins_its_passes_afterwards(index, per_image):
    settings = config(pts={"warmup": WARM}, data={"instructions_per_image": per_image})
    plan = Plan.from_config(index, settings)
    compact = column(index, "mask_area") / column(index, "box_area") >= 0.6
    batch = plan.positions(0, STEPS * BATCH)
    edge = round(0.4 * STEPS * BATCH)
    warm, rest = (
        np.concatenate([b.rows for b in part])
        for part in ([plan.positions(0, edge)], [plan.positions(edge, STEPS * BATCH)])
    )
    assert compact[warm].all() and not compact[rest].all()
    for rows, kept in ((warm, compact), (rest, np.ones(len(index), bool))):
        for task in range(3):
            own = rows[index.tasks[rows] == task]
            count = int(((index.tasks == task) & kept).sum())
            for begin in range(
                0, len(own), count
            ):  # whole passes over what there is, none drawn twice in one
                part = own[begin : begin + count]
                assert len(set(part.tolist())) == len(part)
    assert len(warm[index.tasks[warm] == 0]) > int(((index.tasks == 0) & compact).sum())
    # The same from any place on and for any number of workers.
    for begin, end in ((0, 17), (edge - 3, edge + 5), (edge, edge + 1), (300, 480)):
        found = plan.positions(begin, end)
        low, high = batch.splits[begin], batch.splits[end]
        assert found.rows.tolist() == batch.rows[low:high].tolist()
        assert found.splits.tolist() == (batch.splits[begin : end + 1] - low).tolist()
    step = edge // BATCH
    parts = [plan.rank_slice(step, rank, 4).rows for rank in range(4)]
    assert np.concatenate(parts).tolist() == plan.batch(step).rows.tolist()
    for position in (3, edge - 1, edge, edge + 40):
        stand_in = plan.substitute(position, 0, 0)
        assert index.tasks[stand_in] == batch.tasks[position]
        assert compact[stand_in] or position >= edge
    assert plan.passes(0) < 480 / plan.units.count(0)


def test_shares_in_a_phase_are_over_its_own_instructions(index):
    wanted = {"interactive": 0.5, "referring": 0.3, "reasoning": 0.2}
    warm = [{"until": 0.9, "shares": wanted, "filters": [{"tasks": ["interactive"], "max_area": 0.2}]}]
    settings = config(
        pts={"warmup": warm, **BOTH["pts"]},
        data={"instructions_per_image": 4},
        train={"global_batch": BATCH, "steps": 1000},
    )
    plan = Plan.from_config(index, settings)
    tasks = np.concatenate([plan.batch(step).row_tasks for step in range(900)])
    np.testing.assert_allclose(np.bincount(tasks) / len(tasks), list(wanted.values()), atol=0.005)
    np.testing.assert_allclose(plan.share_at(100), list(wanted.values()), atol=1e-6)


def test_fingerprints_tell_filters_and_are_otherwise_what_they_were(index):
    plain = Plan.from_config(index, config())
    content = {
        "version": VERSION,
        "index": index.fingerprint,
        "shares": plain.curve.record(),
        "seed": 0,
        "batch": BATCH,
        "units": list(index.counts()),
    }
    assert plain.fingerprint == hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    phases = [{k: v for k, v in phase.items() if k != "filters"} for phase in WARM]
    changed = [
        {"data": {"filters": [{"min_fill": 0.5}]}},
        {"data": {"filters": [{"min_fill": 0.6}]}},
        {"pts": {"warmup": WARM}},
        {"pts": {"warmup": phases}},
        {"pts": {"warmup": [*WARM[:1], *phases[1:]]}},
    ]
    prints = {Plan.from_config(index, config(**change)).fingerprint for change in changed}
    assert len(prints | {plain.fingerprint}) == len(changed) + 1


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        (
            {
                "data": {
                    "filters": [
                        {"min_area": 0.01},
                        {"tasks": ["referring"], "min_fill": 1.0, "max_area": 0.01},
                    ]
                }
            },
            r"data.filters\[1\].* leaves no referring sample of the \d+ that remained before it \(of \d+",
        ),
        (
            {
                "pts": {
                    "warmup": [{"until": 0.1, "shares": {"referring": 1}, "filters": [{"max_area": 0.0001}]}]
                }
            },
            r"pts.warmup\[0\].filters\[0\].max_area=0.0001 leaves no referring sample",
        ),
        ({"data": {"filters": [{"categories": ["Bulding"]}]}}, "'Bulding'; did you mean Building"),
        ({"data": {"filters": [{"categories": [99]}]}}, "no sample has 99; there are 1, 2, 3, 4"),
        ({"data": {"filters": [{"sources": ["rael"]}]}}, "did you mean real"),
        (
            {
                "pts": {"schedule": "recorded", "record": [[8, 8, 8]]},
                "data": {"filters": [{"max_area": 1e-9}]},
            },
            "leaves no interactive sample",
        ),
    ],
)
def test_what_leaves_nothing_or_names_nothing_is_refused(index, sections, says):
    with pytest.raises(UserError, match=says):
        Plan.from_config(index, config(**sections))


def test_a_task_without_a_share_may_be_empty(index):
    base = {"interactive": 1, "referring": 0, "reasoning": 0}
    none = {"tasks": ["referring", "reasoning"], "max_area": 1e-9}
    plan = Plan.from_config(
        index, config(pts={"base": base, "schedule": "constant"}, data={"filters": [none]})
    )
    assert [plan.units.samples(t) for t in range(3)] == [index.counts()[0], 0, 0]
    warm = [{"until": 0.3, "shares": {"interactive": 1}, "filters": [none]}]
    assert Plan.from_config(index, config(pts={"warmup": warm})).batch(0)


def test_an_index_that_does_not_tell_is_refused(index):
    poor = StoreIndex(index.store, index.split, index.table.drop_columns(["box_area"]), index.card)
    with pytest.raises(UserError, match="lacks box_area; leave the setting out, or build"):
        Plan.from_config(poor, config(data={"filters": [{"min_fill": 0.5}]}))
    Plan.from_config(poor, config(data={"filters": [{"min_area": 0.01}]}))


def test_an_adaptive_run_goes_on_with_the_plan_that_it_began(index):
    settings = config(pts={"schedule": "adaptive"}, data={"filters": [{"min_fill": 0.5}]})
    begun, shares = Plan.from_config(index, settings), AdaptiveShares(settings, index)
    assert shares.plan().fingerprint == begun.fingerprint


def test_commands_show_and_refuse(tmp_path, capfd):
    store = write_store(tmp_path / "store")
    preset = tmp_path / "p.yaml"
    warm = [{"until": 0.5, "shares": {"interactive": 1}, "filters": [{"max_area": 0.055}]}]
    values = {"train": {"global_batch": 8, "steps": 20}, "pts": {"warmup": warm}}
    preset.write_text(yaml.safe_dump(values))
    done = here(capfd, "plan", "--store", str(store), "--preset", str(preset), "--json")
    assert done.returncode == 0, done.stderr
    phases = json.loads(done.stdout)["phases"]
    assert [phase["step"] for phase in phases] == [0, 10]
    assert phases[0]["samples"]["interactive"] < phases[1]["samples"]["interactive"]
    done = here(capfd, "plan", "--store", str(store), "--preset", str(preset))
    assert "from step 10 on:" in done.stdout
    arguments = ("--store", str(store), "--preset", str(preset), "--set")
    done = here(capfd, "train", "--dry-run", *arguments, "data.filters=[{max_area: 0.01}]")
    check(done, 2, "data.filters[0].max_area=0.01 leaves no interactive sample", "tasks")
    for value, part in (("[{}]", "leaves nothing out"), ("[{min_area: 0.5, max_area: 0.1}]", "min_area=0.5")):
        check(here(capfd, "plan", *arguments, f"data.filters={value}"), 2, "data.filters.0", part)
    done = here(capfd, "plan", *arguments, "pts.schedule=adaptive")
    check(done, 2, "pts", "leave the filters out")
