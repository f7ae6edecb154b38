"""The plain stream: plan order, quarantine, and its limits. Ray Data's is compared with it elsewhere."""

import pytest

from pipelines.config import Config
from pipelines.plan import Plan
from pipelines.store.index import StoreIndex
from pipelines.stream.layout import Layout
from pipelines.stream.plain import open_plain_stream
from pipelines.stream.quarantine import BadSampleEvent, Quarantine
from pipelines.stream.tokenizer import prepare_tokenizer
from tests.tiny_store import write_store
from unigeoseg.errors import UserError

STEPS = 30


def config(**sections):
    values = {
        "name": "test",
        "model": {"image_size": 64},
        "tokenizer": {"vocab_size": 300},
        "train": {"global_batch": 8, "micro_batch": 2, "steps": STEPS},
        "data": {"block_positions": 6, "max_bad_share": 0.2},
    }
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section}
    return Config.model_validate(values)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return str(write_store(tmp_path_factory.mktemp("good")))


@pytest.fixture(scope="module")
def tokenizer(good, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    prepare_tokenizer(config(), StoreIndex.open(good), folder)
    return str(folder)


def delivered(config, store, tokenizer, world, **options):
    """Ids by step of all workers, in plan order, and the last worker's statistics."""
    steps: dict[int, list[str]] = {}
    reasons: dict[str, int] = {}
    for rank in range(world):
        with open_plain_stream(config, store, tokenizer, rank, world, **options) as stream:
            for item in stream:
                steps.setdefault(item.step, []).extend(item.batch.sample_ids)
            reasons = {k: reasons.get(k, 0) + n for k, n in {**reasons, **stream.stats.quarantined}.items()}
    return steps, stream.stats


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("prefetch", [0, 2])
def test_delivers_the_plan(good, tokenizer, world, prefetch):
    cfg = config(data={"prefetch_batches": prefetch})
    index = StoreIndex.open(good)
    plan = Plan.from_config(index, cfg)
    steps, stats = delivered(cfg, good, tokenizer, world, start_step=3, stop_step=11)
    assert steps == {s: index.sample_ids(plan.batch(s).rows) for s in range(3, 11)}
    assert stats.quarantined == {}
    assert stats.read.samples == 64 // world
    assert stats.read.images <= stats.read.samples


def test_batches(good, tokenizer):
    cfg = config(data={"instructions_per_image": 3})
    plan = Plan.from_config(StoreIndex.open(good), cfg)
    items = list(open_plain_stream(cfg, good, tokenizer, 1, 2, 0, 4))
    assert [(i.step, i.micro) for i in items] == [(s, m) for s in range(4) for m in range(2)]
    for item in items:
        first = item.step * 8 + 4 + 2 * item.micro
        assert item.batch.positions == [first, first + 1]
        assert item.batch.images.shape == (2, 3, 64, 64)
        rows = plan.positions(first, first + 2)
        assert item.batch.task.tolist() == rows.row_tasks.tolist()
        assert len(item.batch) == len(rows.rows)


def test_block_is_read_once(tokenizer, tmp_path):
    """One image, many positions: one request a block."""
    store = str(write_store(tmp_path, images=1, per_image=(4, 4, 4)))
    with open_plain_stream(config(), store, tokenizer, 0, 1, 0, 3) as stream:
        list(stream)
    assert stream.stats.read.requests == 4
    assert stream.stats.read.samples == 24


def damage_some(i, encoded, record):
    if i == 4:
        return encoded[: len(encoded) // 2]
    if i == 9:
        record["samples"][0]["box"] = [0.1, 0.1, 1.5, 0.2]
        record["samples"][1]["instruction"] = "show me " * 2000
    return None


def test_quarantine_is_reproducible_and_reported(tokenizer, tmp_path):
    store = str(write_store(tmp_path / "store", damage=damage_some))
    index = StoreIndex.open(store)
    cfg = config()
    plan = Plan.from_config(index, cfg)
    one, stats = delivered(cfg, store, tokenizer, 1)
    for world in (2, 4):
        assert delivered(cfg, store, tokenizer, world)[0] == one
    bad = {r["sample_id"] for r in index.table.to_pylist() if r["key"] == "img_0004"}
    bad |= {
        index.sample_ids([r])[0]
        for r in range(len(index))
        if index.table["key"][r].as_py() == "img_0009" and index.table["n"][r].as_py() < 2
    }
    task = dict(zip(index.table["sample_id"].to_pylist(), index.tasks.tolist(), strict=True))
    replaced = 0
    for step, ids in one.items():
        wanted = index.sample_ids(plan.batch(step).rows)
        for want, got in zip(wanted, ids, strict=True):
            replaced += want != got
            assert (want == got) == (want not in bad)
            assert got not in bad
            assert task[got] == task[want]
    assert replaced > len(bad)
    assert stats.quarantined == {"coordinates": 1, "too_long": 1, "unreadable_image": len(bad) - 2}
    assert events_by_step(cfg, store, tokenizer, 1) == events_by_step(cfg, store, tokenizer, 4)
    with open_plain_stream(cfg, store, tokenizer) as stream:
        events = [e for item in stream for e in item.events]
    assert {e.sample_id for e in events} == bad
    assert all(e.replaced_by not in bad for e in events)


def events_by_step(cfg, store, tokenizer, world):
    """Each bad sample with the step that met it, whichever worker and block read it."""
    found = {}
    for rank in range(world):
        with open_plain_stream(cfg, store, tokenizer, rank, world) as stream:
            for item in stream:
                assert all(e.position in item.batch.positions for e in item.events)
                found.setdefault(item.step, []).extend(item.events)
    return found


def test_the_verdict_counts_each_bad_sample_once_and_grows_with_the_steps():
    def event(name, position):
        return BadSampleEvent(name, "text", "no text", position, "other")

    quarantine = Quarantine(samples=100_000, max_share=0.001, report="run/quarantine.jsonl")
    assert quarantine.remember([event("a", 1), event("b", 2), event("a", 3)]) == [
        event("a", 1),
        event("b", 2),
    ]
    with pytest.raises(
        UserError, match=r"(?s)2 unusable samples, more than the 1 .*run/quarantine.jsonl.*a: text"
    ):
        quarantine.judge(seen=50)
    quarantine.judge(seen=2000)
    assert quarantine.remember([event("b", 7)]) == []
    assert quarantine.reasons == {"text": 2}


def test_a_store_of_bad_samples_ends(tokenizer, tmp_path):
    store = str(write_store(tmp_path, images=4, damage=lambda i, encoded, record: b"no image"))
    with pytest.raises(UserError, match="in a row are unusable"):
        list(open_plain_stream(config(data={"max_bad_share": 1.0}), store, tokenizer))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"world": 3}, "use 6 or 9"),
        ({"world": 16}, "larger than"),
        ({"world": 2, "rank": 2}, "rank 2"),
        ({"start_step": 28, "stop_step": 31}, "step 30 is not in the plan"),
    ],
)
def test_requests_that_do_not_fit(good, tokenizer, arguments, says):
    with pytest.raises(UserError, match=says):
        open_plain_stream(config(), good, tokenizer, **arguments)


def test_micro_batch_that_does_not_divide():
    with pytest.raises(UserError, match=r"micro_batch=2 does not divide the 1 .*use one of \[1\]"):
        Layout.of(config(), 0, 8, 0, 1)
