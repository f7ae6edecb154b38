"""The stream through a real local Ray: both modes deliver the plan, and the same tensors as the plain one."""

import dataclasses
import json

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from click.testing import CliRunner

from jobs.trace import stream, trace
from pipelines.config import Config
from pipelines.plan import Plan
from pipelines.store.index import StoreIndex
from pipelines.stream import open_stream, ray_stream
from pipelines.stream.plain import open_plain_stream
from pipelines.stream.tokenizer import prepare_tokenizer
from tests.tiny_store import write_store
from tests.unit.test_cli_errors import check, here
from unigeoseg.errors import UserError
from unigeoseg.samples.tokens import train_tokenizer

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def local_ray():
    import ray

    if ray.is_initialized():
        yield
        return
    ray.init(address="local", include_dashboard=False, num_cpus=2, log_to_driver=False)
    yield
    ray.shutdown()


def config(decode, **data):
    return Config.model_validate(
        {
            "name": "test",
            "model": {"image_size": 64},
            "tokenizer": {"vocab_size": 300},
            "train": {"global_batch": 8, "micro_batch": 2, "steps": 20},
            "data": {"block_positions": 6, "max_bad_share": 0.2, "decode": decode, **data},
        }
    )


def cut_short(i, encoded, record):
    return encoded[: len(encoded) // 2] if i == 4 else None


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return str(write_store(tmp_path_factory.mktemp("store"), damage=cut_short))


@pytest.fixture(scope="module")
def tokenizer(store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    prepare_tokenizer(config("worker"), StoreIndex.open(store), folder)
    return str(folder)


@pytest.mark.parametrize("decode", ["worker", "actors"])
def test_delivers_the_plan_and_the_plain_streams_tensors(local_ray, store, tokenizer, decode):
    cfg = config(decode, instructions_per_image=2)
    index = StoreIndex.open(store)
    plan = Plan.from_config(index, cfg)
    reasons: set[str] = set()
    # Starting actors takes seconds: one worker has to do for them.
    for rank in range(2 if decode == "worker" else 1):
        with (
            open_stream(cfg, store, tokenizer, rank, 2, 3, 19) as items,
            open_plain_stream(cfg, store, tokenizer, rank, 2, 3, 19) as plain,
        ):
            for got, want in zip(items, plain, strict=True):
                assert (got.step, got.micro) == (want.step, want.micro)
                for field in dataclasses.fields(want.batch):
                    one, other = getattr(got.batch, field.name), getattr(want.batch, field.name)
                    same = torch.equal(one, other) if isinstance(other, torch.Tensor) else one == other
                    assert same, field.name
                rows = plan.positions(got.batch.positions[0], got.batch.positions[-1] + 1).rows
                planned = index.sample_ids(rows)
                if not any("img_0004" in name for name in planned):
                    assert got.batch.sample_ids == planned
        stats, plain_stats = items.stats, plain.stats
        assert stats.quarantined == plain_stats.quarantined
        reasons |= set(stats.quarantined)
        for name in ("requests", "bytes", "samples", "images"):
            assert getattr(stats.read, name) == getattr(plain_stats.read, name)
    assert reasons == {"unreadable_image"}


@pytest.mark.parametrize("decode", ["worker", "actors"])
def test_a_users_error_comes_through_ray_as_itself(local_ray, tokenizer, tmp_path, decode):
    store = write_store(tmp_path)
    (store / "shards" / "train-00001.tar").unlink()
    with pytest.raises(UserError, match=r"^\S*train-00001.tar is missing"):
        list(open_stream(config(decode, actors=1), str(store), tokenizer))


def test_a_killed_data_actor_is_replaced(local_ray, tokenizer, tmp_path):
    """The process that reads and decodes dies in the middle; what arrives is still the plan."""
    store = str(write_store(tmp_path / "store"))
    cfg = config("actors", block_positions=8, actors=1)
    index = StoreIndex.open(store)
    plan = Plan.from_config(index, cfg)
    found, killed = {}, []
    with open_stream(cfg, store, tokenizer) as items:
        for item in items:
            found.setdefault(item.step, []).extend(item.batch.sample_ids)
            if item.step == 1 and not killed:
                for process in psutil.Process().children(recursive=True):
                    if "_ReadInActor" in " ".join(process.cmdline()):
                        process.kill()
                        killed.append(process.pid)
    assert killed
    assert found == {step: index.sample_ids(plan.batch(step).rows) for step in range(20)}


@pytest.mark.parametrize("decode", ["worker", "actors"])
def test_a_chain_of_datasets_delivers_the_plan(local_ray, store, tokenizer, monkeypatch, decode):
    monkeypatch.setattr(ray_stream, "_LEG_BLOCKS", 9)
    monkeypatch.setattr(ray_stream, "_AHEAD_BLOCKS", 2)
    cfg = config(decode, actors=1)
    with (
        open_stream(cfg, store, tokenizer, 0, 1) as items,
        open_plain_stream(cfg, store, tokenizer, 0, 1) as plain,
    ):
        found, wanted = ([(i.step, i.micro, i.batch.sample_ids) for i in s] for s in (items, plain))
    assert found == wanted and len(found) == 80


def test_no_cpu_for_a_data_actor_is_said_instead_of_waited_for(local_ray, store, tokenizer, monkeypatch):
    import ray

    class Holder:
        def there(self):
            return True

    monkeypatch.setattr(ray_stream, "PATIENCE_S", 1.0)
    holder = ray.remote(num_cpus=2)(Holder).remote()
    ray.get(holder.there.remote())
    try:
        with pytest.raises(UserError, match=r"no CPU is free for a data actor.*data.decode=worker"):
            next(open_stream(config("actors"), store, tokenizer))
        with open_stream(config("worker"), store, tokenizer) as items:
            assert next(items).step == 0
    finally:
        ray.kill(holder)


def test_more_actors_than_cpus_are_as_many_as_there_is_room_for(local_ray, store, tokenizer, monkeypatch):
    import ray

    class Holder:
        def there(self):
            return True

    # Shorter than an actor takes to start: one that starts is no want of a CPU, though it has the last one.
    # Longer than its process does, of which nothing is known before.
    monkeypatch.setattr(ray_stream, "PATIENCE_S", 5.0)
    holder = ray.remote(num_cpus=1)(Holder).remote()
    ray.get(holder.there.remote())
    cfg = config("actors", actors=4)
    try:
        with (
            open_stream(cfg, store, tokenizer) as items,
            open_plain_stream(cfg, store, tokenizer) as plain,
        ):
            assert [item.batch.sample_ids for item in items] == [item.batch.sample_ids for item in plain]
    finally:
        ray.kill(holder)


def test_leaving_early_stops_reading(local_ray, store, tokenizer):
    with open_stream(config("worker"), store, tokenizer) as items:
        first = next(items)
    assert first.step == 0
    assert items.stats.batches == 1


def test_the_command_prints_what_trace_promises(local_ray, tmp_path):
    store = str(write_store(tmp_path / "store"))
    preset = tmp_path / "tiny.yaml"
    preset.write_text(yaml.safe_dump(config("worker").model_dump(mode="json")))
    printed = []
    for command in (trace, stream):
        words = [store, "--preset", str(preset), "--steps", "2:8", "--world-size", "2", "--json"]
        result = CliRunner().invoke(command, words, catch_exceptions=False)
        printed.append(json.loads(result.stdout))
    stats = printed[1].pop("stats")
    assert printed[0] == printed[1]
    assert stats["samples"] == 48
    assert stats["quarantined"] == {}
    assert {"wait", "bytes", "requests"} <= set(stats)


def shift(store):
    """The index of another build: rows point to the image after theirs."""
    table = pq.read_table(store / "index.parquet")
    places = list(zip(*(table[name].to_pylist() for name in ("shard", "offset", "nbytes")), strict=True))
    names = list(dict.fromkeys(places))
    others = dict(zip(names, names[1:] + names[:1], strict=True))
    for at, name in enumerate(("shard", "offset", "nbytes")):
        column = pa.array([others[place][at] for place in places])
        table = table.set_column(table.column_names.index(name), name, column)
    pq.write_table(table, store / "index.parquet")


def cut(store):
    path = store / "shards" / "train-00001.tar"
    path.write_bytes(path.read_bytes()[:20_000])


def lose(store):
    (store / "shards" / "train-00001.tar").unlink()


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (shift, "index and shards do not belong together"),
        (cut, "train-00001.tar: "),
        (lose, "train-00001.tar is missing, though the index names it"),
    ],
)
def test_the_command_refuses_an_index_that_does_not_match_its_shards(
    local_ray, tmp_path, capfd, damage, says
):
    store = write_store(tmp_path / "store")
    damage(store)
    preset = tmp_path / "tiny.yaml"
    preset.write_text(yaml.safe_dump(config("worker").model_dump(mode="json")))
    words = ("--set", f"tokenizer.path={tmp_path / 'words'}", "--steps", "0:8", "--json")
    train_tokenizer(["some words"], 300, tmp_path / "words")
    done = here(capfd, "data", "stream", str(store), "--preset", str(preset), *words)
    check(done, 2, says)
    assert done.stdout == ""


def test_the_command_stops_at_too_many_bad_records(local_ray, tmp_path, capfd):
    def spoil(i, encoded, record):
        return b"no image" if i % 4 == 1 else None

    store = write_store(tmp_path / "store", damage=spoil)
    preset = tmp_path / "tiny.yaml"
    preset.write_text(yaml.safe_dump(config("worker", max_bad_share=0.001).model_dump(mode="json")))
    done = here(capfd, "data", "stream", str(store), "--preset", str(preset), "--steps", "0:8")
    check(done, 2, "unusable samples, more than the 1 that data.max_bad_share=0.001", "unreadable_image")
