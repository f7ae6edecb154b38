"""The plan as a whole, on a small store."""

import numpy as np
import pytest

from pipelines.config import Config
from pipelines.plan import Plan
from pipelines.store.index import StoreIndex
from tests.tiny_store import write_store
from unigeoseg.errors import UserError


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    return StoreIndex.open(str(write_store(tmp_path_factory.mktemp("store"))))


def config(**sections):
    values = {"name": "test", "train": {"global_batch": 8, "steps": 60}}
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section} if isinstance(section, dict) else section
    return Config.model_validate(values)


def ids(index, plan, start=0, stop=None):
    return [index.sample_ids(plan.batch(s).rows) for s in range(start, plan.steps if stop is None else stop)]


def test_pure_function(index):
    one, two = Plan.from_config(index, config()), Plan.from_config(index, config())
    assert one.fingerprint == two.fingerprint
    assert ids(index, one) == ids(index, two)
    # Asked for in another order, from the middle: the tail of the plan from 0.
    assert ids(index, two, 30) == ids(index, one)[30:]


@pytest.mark.parametrize("per_image", [1, 2, 4])
def test_each_pass_is_a_permutation(index, per_image):
    plan = Plan.from_config(index, config(data={"instructions_per_image": per_image}))
    drawn = {0: [], 1: [], 2: []}
    for step in range(plan.steps):
        batch = plan.batch(step)
        for row, task in zip(batch.rows, batch.row_tasks, strict=True):
            drawn[int(task)].append(int(row))
    for task, rows in drawn.items():
        count = index.counts()[task]
        assert len(rows) > count
        for begin in range(0, len(rows), count):
            part = rows[begin : begin + count]
            assert len(set(part)) == len(part)
            assert all(index.tasks[r] == task for r in part)


@pytest.mark.parametrize("per_image", [1, 4])
def test_workers_share_the_same_batches(index, per_image):
    plan = Plan.from_config(index, config(data={"instructions_per_image": per_image}))
    for step in (0, 7, 59):
        whole = plan.batch(step)
        for world in (1, 2, 4, 8):
            parts = [plan.rank_slice(step, rank, world) for rank in range(world)]
            assert np.concatenate([p.rows for p in parts]).tolist() == whole.rows.tolist()
            assert [u for p in parts for u in p.units] == whole.units
            assert [n for p in parts for n in p.positions] == list(whole.positions)


def test_units_hold_one_image_and_task_and_all_samples(index):
    plan = Plan.from_config(index, config(data={"instructions_per_image": 2}))
    units = plan.units
    assert sorted(units.rows.tolist()) == list(range(len(index)))
    for begin, end in zip(units.starts[:-1], units.starts[1:], strict=True):
        rows = units.rows[begin:end]
        assert 1 <= len(rows) <= 2
        assert len(set(index.images[rows].tolist())) == len(set(index.tasks[rows].tolist())) == 1


def test_shares_are_over_instructions(index):
    wanted = {"interactive": 0.5, "referring": 0.25, "reasoning": 0.25}
    for per_image in (1, 4):
        plan = Plan.from_config(
            index,
            config(
                data={"instructions_per_image": per_image},
                pts={"base": wanted, "schedule": "constant"},
                train={"steps": 500},
            ),
        )
        tasks = np.concatenate([plan.batch(s).row_tasks for s in range(plan.steps)])
        np.testing.assert_allclose(np.bincount(tasks) / len(tasks), list(wanted.values()), atol=0.005)
        np.testing.assert_allclose(plan.share_at(17), list(wanted.values()), atol=1e-6)


def test_fingerprint_changes_with_all_that_matters(index, tmp_path):
    base = Plan.from_config(index, config()).fingerprint
    changed = [
        config(seed=1),
        config(train={"global_batch": 16}),
        config(train={"steps": 61}),
        config(pts={"schedule": "cosine"}),
        config(pts={"end_weight": 0.5}),
        config(pts={"warmup": [{"until": 0.1, "shares": {"interactive": 1}}]}),
        config(data={"instructions_per_image": 2}),
    ]
    other = StoreIndex.open(str(write_store(tmp_path, images=25)))
    prints = [Plan.from_config(index, c).fingerprint for c in changed]
    prints.append(Plan.from_config(other, config()).fingerprint)
    assert len({base, *prints}) == len(prints) + 1
    same = [config(train={"lr": 0.5}), config(scale={"workers": 4}), config(data={"decode": "actors"})]
    assert {Plan.from_config(index, c).fingerprint for c in same} == {base}


def test_steps_come_from_epochs(index):
    plan = Plan.from_config(index, config(train={"steps": None, "epochs": 3, "global_batch": 8}))
    assert plan.steps == -(-3 * len(index) // 8)


def test_substitutes_are_of_the_task_and_reproducible(index):
    plan, again = Plan.from_config(index, config()), Plan.from_config(index, config())
    for position in (0, 5, 100):
        rows = [plan.substitute(position, 0, attempt) for attempt in range(4)]
        assert rows == [again.substitute(position, 0, attempt) for attempt in range(4)]
        assert {int(index.tasks[r]) for r in rows} == {int(plan.batch(position // 8).tasks[position % 8])}
        assert len(set(rows)) > 1


def test_order_is_pinned(index):
    """The same on every platform and in every version; see test_permute.test_values_are_pinned."""
    plan = Plan.from_config(index, config())
    assert plan.batch(0).tasks.tolist() == [0, 1, 0, 2, 0, 1, 0, 1]
    assert plan.batch(0).rows.tolist() == [18, 8, 123, 115, 24, 131, 52, 13]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"pts": {"base": {"interactive": -1, "referring": 1}}}, "share of interactive is -1"),
        ({"pts": {"base": {"interactiv": 1}}}, "unknown task 'interactiv'"),
        ({"pts": {"base": {"interactive": 0}}}, "all shares are zero"),
    ],
)
def test_bad_shares(index, change, says):
    with pytest.raises(UserError, match=says):
        Plan.from_config(index, config(**change))


def test_a_share_without_samples(tmp_path):
    index = StoreIndex.open(str(write_store(tmp_path, images=6, per_image=(2, 1, 0))))
    with pytest.raises(UserError, match=r"reasoning a share of up to .* has no reasoning sample.*pts"):
        Plan.from_config(index, config())
    Plan.from_config(index, config(pts={"schedule": "constant"})).batch(0)


@pytest.mark.parametrize(
    ("world", "says"), [(16, "larger than train.global_batch=8"), (3, "use 6 or 9"), (0, "one")]
)
def test_worlds_that_do_not_fit(index, world, says):
    with pytest.raises(UserError, match=says):
        Plan.from_config(index, config()).rank_slice(0, 0, world)


def test_a_step_outside(index):
    with pytest.raises(UserError, match="step 60 is not in the plan"):
        Plan.from_config(index, config()).batch(60)
