"""Reading Parquet leaves nothing to Arrow's threads for which they would need the interpreter at its end."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec import filesystem

from pipelines.curate.merge import merge_stores
from pipelines.storage.parquet import parquet_bytes, read_parquet
from tests.built_store import synthetic_store

ROWS = 5000
LAST_ACT = """
import sys
import pyarrow as pa, pyarrow.parquet as pq
from fsspec import filesystem
from pipelines.storage.parquet import parquet_bytes, read_parquet
pa.set_cpu_count(32)
pa.set_io_thread_count(32)
fs = filesystem("file")
for _ in range(4):
    pq.read_table(parquet_bytes(fs.cat_file(sys.argv[1])))
    read_parquet(fs, sys.argv[1])
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("parquet") / "a.parquet"
    columns = {f"c{n}": [f"{n} {row % 7}" for row in range(ROWS)] for n in range(6)}
    pq.write_table(pa.table(columns), path, row_group_size=1000)
    return str(path)


@pytest.mark.parametrize("kind", ["file", "memory"])
def test_what_is_read_is_what_was_written(kind, file):
    fs = filesystem(kind)
    if kind == "memory":
        fs.pipe_file(file, filesystem("file").cat_file(file))
    whole = pq.read_table(file)
    assert read_parquet(fs, file) == whole == pq.read_table(parquet_bytes(fs.cat_file(file)))
    some = read_parquet(fs, file, ["c4", "c1"], ["c1"])
    assert sorted(some.column_names) == ["c1", "c4"] and pa.types.is_dictionary(some["c1"].type)
    assert np.array_equal(some["c1"].to_numpy(), whole["c1"].to_numpy())


def test_a_process_that_ends_after_reading_ends_well(file):
    """Of eight that read through Python's own files, two or three are aborted."""
    begun = [
        subprocess.Popen([sys.executable, "-c", LAST_ACT, file], stderr=subprocess.PIPE) for _ in range(8)
    ]
    ended = [(process.communicate()[1].decode(), process.returncode) for process in begun]
    assert ended == [("", 0)] * 8


def test_a_merge_hands_arrow_no_file_of_pythons(tmp_path, monkeypatch):
    for seed in (1, 2):
        synthetic_store(tmp_path / str(seed), 3, 128, seed=seed, split={"val": 0.0})
    given = []

    def noted(method, place):
        def call(*arguments, **named):
            given.append(arguments[place])
            return method(*arguments, **named)

        return call

    monkeypatch.setattr(pq.ParquetFile, "__init__", noted(pq.ParquetFile.__init__, 1))
    monkeypatch.setattr(pq, "read_table", noted(pq.read_table, 0))
    stores = [str(tmp_path / "1"), str(tmp_path / "2")]
    merge_stores(stores, str(tmp_path / "out"), on_duplicate="first", progress=False, preview=False)
    assert len(given) >= 5
    assert {type(source) for source in given} <= {pa.OSFile, pa.BufferReader}
