"""Opening a store: what is refused, and what the index says."""

import json

import numpy as np
import pytest

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
