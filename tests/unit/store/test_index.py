"""Opening a store: what is refused, and what the index says."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.store import mapped as mapped_index
from pipelines.store.index import StoreIndex
from tests.tiny_store import write_store
from unigeoseg.errors import UserError


@pytest.fixture
def store(tmp_path):
    return write_store(tmp_path / "store", images=12)


def test_content(store):
    index = StoreIndex.open(str(store))
    assert sum(index.counts()) == len(index) == len(index.tasks)
    assert sum(index.natural_shares()) == pytest.approx(1)
    assert index.images[-1] == 11
    assert (np.diff(index.images) >= 0).all()
    assert index.sample_ids([3, 0]) == [
        index.table["sample_id"][3].as_py(),
        index.table["sample_id"][0].as_py(),
    ]


def test_fingerprint_is_of_the_content(store, tmp_path):
    one = StoreIndex.open(str(store)).fingerprint
    assert StoreIndex.open(str(write_store(tmp_path / "same", images=12))).fingerprint == one
    assert StoreIndex.open(str(write_store(tmp_path / "more", images=13))).fingerprint != one


@pytest.fixture
def mapped(store, tmp_path, monkeypatch):
    """The store's index, mapped in pieces of ten rows; and the folder of the mapped file."""
    monkeypatch.setattr(mapped_index, "MAPPED_FROM", 0)
    monkeypatch.setattr(mapped_index, "_ROWS", 10)
    monkeypatch.setattr(mapped_index, "_READ_ROWS", 4)
    monkeypatch.setenv(mapped_index.CACHE, str(tmp_path / "cache"))
    return StoreIndex.open(str(store)), next((tmp_path / "cache").iterdir())


def test_a_mapped_index_is_the_same_index(store, mapped, monkeypatch):
    there, folder = mapped
    before = pa.total_allocated_bytes()
    again = StoreIndex.open(str(store))
    assert pa.total_allocated_bytes() == before  # its rows are pages of the file
    assert len(list(folder.glob("*.arrow"))) == 1
    monkeypatch.setattr(mapped_index, "MAPPED_FROM", 1 << 40)
    here = StoreIndex.open(str(store))
    assert there.table["key"].num_chunks > 3 and here.table["key"].num_chunks == 1
    numbers = np.random.default_rng(0).permutation(len(here))
    for index in (there, again):
        assert index.fingerprint == here.fingerprint
        assert index.counts() == here.counts()
        assert (index.images == here.images).all()
        assert index.rows(numbers) == here.rows(numbers)
        assert index.sample_ids(numbers[:7]) == here.sample_ids(numbers[:7])
        assert index.rows([]) == []


def test_a_changed_index_is_mapped_anew(store, mapped):
    there, folder = mapped
    path = store / "index.parquet"
    pq.write_table(pq.read_table(path).slice(0, 20), path)
    assert len(StoreIndex.open(str(store))) == 20 < len(there)
    assert len(list(folder.glob("*.arrow"))) == 2
    with pytest.raises(UserError, match=r"no samples in split 'val': it has \['train'\]"):
        StoreIndex.open(str(store), "val")
    path.write_bytes(b"PAR1 no parquet")
    with pytest.raises(UserError, match=r"index.parquet is damaged"):
        StoreIndex.open(str(store))


def test_without_a_place_for_it_the_index_is_in_memory(store, mapped, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv(mapped_index.CACHE, str(tmp_path / "file"))
    assert StoreIndex.open(str(store)).fingerprint == mapped[0].fingerprint
    assert "keeps a copy in memory" in caplog.text


def test_refused(store, tmp_path):
    def opening(path, split="train"):
        with pytest.raises(UserError) as caught:
            StoreIndex.open(str(path), split)
        return str(caught.value)

    assert "does not exist" in opening(tmp_path / "nowhere")
    assert "no samples in split 'val'" in opening(store, "val")
    assert "['train']" in opening(store, "val")
    (tmp_path / "file").write_text("x")
    assert "not a store" in opening(tmp_path / "file")
    card = (store / "dataset.json").read_text()
    (store / "dataset.json").write_text("{")
    assert "damaged" in opening(store)
    (store / "dataset.json").unlink()
    assert "unfinished" in opening(store)
    (store / "dataset.json").write_text(card)
    (store / "index.parquet").write_bytes(b"PAR1 no parquet")
    assert "index.parquet is damaged" in opening(store)
    (store / "index.parquet").unlink()
    assert "no index.parquet" in opening(store)


def test_empty_store(tmp_path):
    store = write_store(tmp_path, images=1)
    import pyarrow.parquet as pq

    pq.write_table(pq.read_table(store / "index.parquet").slice(0, 0), store / "index.parquet")
    assert json.loads((store / "dataset.json").read_text())["version"] == 1
    with pytest.raises(UserError, match="no samples at all"):
        StoreIndex.open(str(store))
