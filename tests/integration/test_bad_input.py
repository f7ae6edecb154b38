"""What does not fit is refused by the command itself: one clear line, exit code 2, no traceback."""

import json
import subprocess
import sys

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml

from tests.tiny_store import write_store
from tests.train_runs import ROOT, tiny_values

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    path = tmp_path_factory.mktemp("preset") / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny_values(**{"train.global_batch": 8, "train.steps": 20})))
    return str(path)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("good"))


def refused(*words):
    """What the command says on stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "jobs.cli", *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--set", "train.global_batch=7", "--set", "scale.workers=2"], "use 6 or 8"),
        (["--world-size", "3"], "global_batch=8 cannot be split over world size 3; use 6 or 9"),
        (["--world-size", "16"], "world size 16 is larger than train.global_batch=8"),
        (["--set", "pts.end_weight=1.2"], "pts.end_weight"),
        (["--set", "pts.base={interactive: -1, referring: 2}"], "share of interactive is -1"),
        (["--set", "pts.record=[[1, 1, 1]]"], "pts.record is of no use with pts.schedule=linear"),
    ],
)
def test_schedules_and_batches(good, preset, words, says):
    text = refused("data", "trace", good, "--preset", preset, *words)
    assert says in text and len(text.strip().splitlines()) <= 2


def test_a_share_for_a_task_without_samples(preset, tmp_path):
    store = write_store(tmp_path, per_image=(3, 2, 0))
    text = refused("data", "trace", store, "--preset", preset)
    assert "gives reasoning a share" in text and "pts.schedule=constant" in text


def shifted(store):
    """The index of another build: rows point to the image after theirs."""
    path = store / "index.parquet"
    table = pq.read_table(path)
    offsets = table["offset"].to_pylist()
    sizes = table["nbytes"].to_pylist()
    keys = table["key"].to_pylist()
    first = {k: (o, n) for k, o, n in zip(keys, offsets, sizes, strict=True)}
    names = list(first)
    other = {a: first[b] for a, b in zip(names[:9], [*names[1:9], names[0]], strict=True)}
    place = [other.get(k, first[k]) for k in keys]
    table = table.set_column(table.column_names.index("offset"), "offset", pa.array([p[0] for p in place]))
    pq.write_table(
        table.set_column(table.column_names.index("nbytes"), "nbytes", pa.array([p[1] for p in place])), path
    )


def cut(store):
    path = store / "shards" / "train-00001.tar"
    path.write_bytes(path.read_bytes()[:20_000])


def gone(store):
    (store / "shards" / "train-00001.tar").unlink()


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (shifted, "index and shards do not belong together"),
        (cut, "train-00001.tar: "),
        (gone, "train-00001.tar is missing, though the index names it"),
    ],
    ids=["shifted", "cut", "gone"],
)
def test_an_index_that_does_not_match_its_shards(preset, tmp_path, damage, says):
    store = write_store(tmp_path / "store")
    damage(store)
    assert says in refused("data", "stream", store, "--preset", preset, "--steps", "0:8")


def spoil(i, encoded, record):
    return b"no image" if i % 4 == 1 else None


def test_too_many_bad_records_stop_the_stream_and_the_training(preset, tmp_path):
    store = write_store(tmp_path / "store", images=400, size=24, damage=spoil)
    words = ["--preset", preset, "--set", "data.max_bad_share=0.001"]
    text = refused("data", "stream", store, *words, "--steps", "0:8")
    assert "unusable samples, more than the 1 that data.max_bad_share=0.001" in text
    run = tmp_path / "run"
    # A held-out split, so that training begins.
    table = pq.read_table(store / "index.parquet")
    last = pc.equal(table["key"], "img_0398")
    splits = pc.if_else(last, "val", table["split"])
    pq.write_table(
        table.set_column(table.column_names.index("split"), "split", splits), store / "index.parquet"
    )
    text = refused("train", "--store", store, "--run", run, *words)
    assert "more than the 1 that data.max_bad_share=0.001" in text and "quarantine.jsonl" in text
    rows = [json.loads(line) for line in (run / "quarantine.jsonl").read_text().splitlines()]
    assert len(rows) > 1 and {row["reason"] for row in rows} == {"unreadable_image"}
    # Another store, another fingerprint: not this run's.
    other = write_store(tmp_path / "other", images=8)
    table = pq.read_table(other / "index.parquet")
    splits = pa.array(["val" if k == "img_0007" else "train" for k in table["key"].to_pylist()])
    pq.write_table(
        table.set_column(table.column_names.index("split"), "split", splits), other / "index.parquet"
    )
    text = refused("train", "--store", other, "--run", run, "--resume", *words)
    assert "was trained on another store" in text and "start a new run with --run" in text
