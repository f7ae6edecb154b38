"""What is made of an index of many rows: by columns, once for all shards, without a copy."""

import tracemalloc
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipelines.build import preview
from pipelines.build.card import CardRows, measured_card
from pipelines.build.seeds import digest
from pipelines.build.variety import Variety
from pipelines.curate import lint
from pipelines.curate.lint import lint_store
from pipelines.store import mapped, repeated, scan
from pipelines.store.index import StoreIndex, coded
from pipelines.store.scan import of_split, open_all_splits, parted, places
from pipelines.store.writer import INDEX_SCHEMA
from tests.tiny_store import write_store

TASKS = ("interactive", "referring", "reasoning")


def rows_of(number, seed=0, shards=7):
    """An index of random samples, shard after shard as the writer leaves them."""
    rng = np.random.default_rng(seed)
    shard = np.sort(rng.integers(0, shards, number))
    image = np.sort(rng.integers(0, number // 2 + 1, number))
    columns = {
        "sample_id": [f"s/{i}/{k}" for k, i in enumerate(image.tolist())],
        "key": [f"k{i}" for i in image.tolist()],
        "n": np.arange(number) % 2,
        "task": [TASKS[k] for k in rng.integers(0, 3, number)],
        "subtask": ["object"] * number,
        "source": [("a", "b")[k] for k in rng.integers(0, 2, number)],
        "category_id": rng.integers(0, 5, number),
        "category": [f"c{k}" for k in rng.integers(0, 5, number)],
        "scene": [f"p{k}" for k in rng.integers(0, number // 3 + 1, number)],
        "split": [("train", "val")[int(k >= shards - 2)] for k in shard],
        "licence": ["CC0"] * number,
        "shard": [f"shards/{k:05d}.tar" for k in shard],
        "offset": image * 512,
        "nbytes": np.full(number, 512),
        "height": rng.integers(20, 60, number),
        "width": rng.integers(20, 60, number),
        "mask_area": rng.integers(1, 300, number),
        "box_area": rng.integers(1, 300, number),
        "words": rng.integers(1, 30, number),
    }
    return pa.table(columns).cast(INDEX_SCHEMA)


def test_a_card_counts_what_the_rows_hold(tmp_path):
    table = rows_of(997)
    pq.write_table(table, tmp_path / "index.parquet", row_group_size=100)
    rows = table.to_pylist()
    card = measured_card(CardRows(str(tmp_path)), [], Variety())
    for name in ("task", "source", "category", "split"):
        assert card["counts"][name] == dict(sorted(Counter(r[name] for r in rows).items()))
        assert list(card["counts"][name]) == sorted(card["counts"][name])
    both = Counter((r["task"], r["split"]) for r in rows)
    assert card["counts"]["task_split"] == {
        t: {s: n for (task, s), n in sorted(both.items()) if task == t} for t in sorted(TASKS)
    }
    assert card["scenes"] == len({(r["source"], r["scene"]) for r in rows})
    assert card["licences"] == {"CC0": 997}
    for task in TASKS:
        mine = [r for r in rows if r["task"] == task]
        words = np.mean([float(r["words"]) for r in mine])
        share = np.mean([r["mask_area"] / (r["height"] * r["width"]) for r in mine])
        assert card["instruction_words"][task] == pytest.approx(words, abs=6e-4)
        assert card["mask_size"]["share_by_task"][task] == pytest.approx(share, abs=6e-7)


def test_a_card_makes_no_texts_of_its_rows():
    number = 60_000
    table = rows_of(number)
    tracemalloc.start()
    try:
        measured_card(table, [], Variety())
        # three columns at once; a list of texts takes 70 bytes a row
        assert tracemalloc.get_traced_memory()[1] < 60 * number
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("mixed", [False, True])
def test_rows_by_shard_are_those_of_a_filter(mixed):
    table = rows_of(500)
    if mixed:
        table = table.take(np.random.default_rng(1).permutation(500))
    found = list(parted(table, "shard"))
    assert [name for name, _ in found] == sorted(set(table["shard"].to_pylist()))
    for name, rows in found:
        assert rows.equals(table.filter(pc.field("shard") == name))
    assert list(parted(table[:0], "shard")) == []


def test_lint_looks_at_the_index_once_and_sends_each_shard_its_rows(tmp_path, monkeypatch):
    store = write_store(tmp_path / "s", images=40, images_per_shard=4)
    looks = []
    monkeypatch.setattr(scan, "coded", lambda column: looks.append(len(column)) or coded(column))
    lint_store(str(store), progress=False)
    whole = pq.read_table(store / "index.parquet")
    # Splits and shards of all rows, then the images of each shard.
    assert sum(looks) <= 3 * len(whole)
    table = rows_of(5000, shards=50)
    sent = [len(lint.packed(rows)) for _, rows in parted(table, "shard")]
    assert max(sent) < 3 * table.nbytes / 50 + 10_000


def test_an_index_of_all_splits_is_not_copied(tmp_path, monkeypatch):
    table = rows_of(40_000)
    (tmp_path / "dataset.json").write_text("{}")
    pq.write_table(table, tmp_path / "index.parquet", row_group_size=5000)
    plain = open_all_splits(str(tmp_path)).table
    monkeypatch.setenv(mapped.CACHE, str(tmp_path / "cache"))
    monkeypatch.setattr(mapped, "MAPPED_FROM", 0)
    open_all_splits(str(tmp_path))  # the first one makes the file
    before = pa.total_allocated_bytes()
    index = open_all_splits(str(tmp_path))
    part = of_split(index, "train")
    assert pa.total_allocated_bytes() - before < table.nbytes / 50
    assert index.table.equals(plain) and index.table.equals(table)
    assert part.table.equals(table.filter(pc.field("split") == "train"))


def test_splits_that_are_mixed_come_one_after_the_other(tmp_path):
    table = rows_of(300).take(np.random.default_rng(2).permutation(300))
    (tmp_path / "dataset.json").write_text("{}")
    pq.write_table(table, tmp_path / "index.parquet")
    found = open_all_splits(str(tmp_path)).table
    expected = [table.filter(pc.field("split") == split) for split in ("train", "val")]
    assert found.equals(pa.concat_tables(expected).combine_chunks())


def test_places_are_the_images_in_order():
    table = rows_of(400)
    index = StoreIndex("s", "all", table, {})
    found, expected = places(index), []
    for n, row in enumerate(table.to_pylist()):
        where = row["shard"], row["offset"]
        if expected and (expected[-1].shard, expected[-1].offset) == where:
            expected[-1] = scan.Place(*where, row["nbytes"], expected[-1].row, expected[-1].rows + 1)
        else:
            expected.append(scan.Place(*where, row["nbytes"], n, 1))
    assert list(found) == expected and len(found) == len(expected)
    assert list(found[3:9]) == expected[3:9] and found[-1] == expected[-1]
    runs = [list(run) for run in found.by_shard()]
    assert [p for run in runs for p in run] == expected and all(
        len({p.shard for p in run}) == 1 for run in runs
    )
    assert list(places(StoreIndex("s", "all", table[:0], {}))) == []


@pytest.mark.parametrize("hashes", [1, 3, None])
def test_repeated_texts_are_every_occurrence_but_the_first(monkeypatch, hashes):
    if hashes:  # texts whose hashes are the same are told apart
        own = repeated._hashes
        monkeypatch.setattr(repeated, "_hashes", lambda chunk: own(chunk) % hashes)
    monkeypatch.setattr(repeated, "_AT_ONCE", 7)
    names = [f"n{k}" for k in np.random.default_rng(0).integers(0, 60, 90)]
    seen, expected = set(), []
    for name in names:
        if name in seen:
            expected.append(name)
        seen.add(name)
    columns = [pa.chunked_array([names[:20], names[20:41]]), pa.chunked_array([names[41:]])]
    assert repeated.repeated(columns) == expected
    assert repeated.repeated([]) == [] and repeated.repeated([pa.chunked_array([["a", "b"]])]) == []


def test_scripts_of_a_store_are_counted_and_few_samples_named():
    names = [f"n{k}" for k in range(1000)]
    scripts = lint._Scripts(1000)
    for at in range(0, 1000, 100):
        part = names[at : at + 100]
        scripts.add({"Latin": part[:-1], "Greek": part[-1:]})
    assert [error["sample_id"] for error in scripts.errors()] == names[99::100]
    assert sum(map(len, scripts._names.values())) <= 100
    even = lint._Scripts(1000)
    even.add({"Latin": names[:500], "Greek": names[500:]})
    assert even.errors() == []


@pytest.mark.parametrize("n", [1, 5, 60, 900])
def test_the_samples_of_a_sheet_are_the_first_of_a_seeded_order(monkeypatch, n):
    index = StoreIndex("s", "all", rows_of(300), {})
    monkeypatch.setattr(preview, "_AT_ONCE", 16)
    rows = np.flatnonzero(np.arange(300) % 3 != 0)
    names, keys = index.sample_ids(rows), index.table["key"].take(pa.array(rows)).to_pylist()
    seen, turns = Counter(), []
    for i in sorted(range(len(rows)), key=lambda i: digest("preview", 4, names[i])):
        seen[keys[i]] += 1
        turns.append((seen[keys[i]], len(turns), int(rows[i])))
    expected = [row for _, _, row in sorted(turns)[:n]]
    assert preview._choose(index, rows, preview.Choice(n=n, seed=4)) == expected
