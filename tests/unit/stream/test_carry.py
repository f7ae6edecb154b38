"""Micro-batches as rows of a table, there and back."""

import dataclasses
import gc

import pyarrow as pa
import pytest
import torch

from pipelines.bench.samples import bench_batch, bench_tokenizer
from pipelines.config import Config
from pipelines.store.reader import ReadStats
from pipelines.stream.carry import pack, pack_error, unpack
from pipelines.stream.layout import Micro
from pipelines.stream.stream import Arrival
from tests.train_runs import tiny_values
from unigeoseg.errors import UserError


@pytest.fixture(scope="module")
def arrivals():
    config = Config.model_validate(tiny_values())
    tokenizer = bench_tokenizer(config)
    batches = [bench_batch(config, tokenizer, images, instructions=2) for images in (1, 3)]
    return [Arrival(Micro(5, n, 4 * n, 2), batch, [], ReadStats()) for n, batch in enumerate(batches)]


def _sent(table):
    """As it comes out of the object store: one buffer, not to be written to."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return pa.ipc.open_stream(sink.getvalue()).read_all()


def test_every_field_comes_back(arrivals):
    table = _sent(pack(arrivals))
    for number, arrival in enumerate(arrivals):
        found = unpack(table.slice(number, 1))
        assert found.micro == arrival.micro and found.read == arrival.read
        for field in dataclasses.fields(arrival.batch):
            ours, theirs = getattr(found.batch, field.name), getattr(arrival.batch, field.name)
            if isinstance(theirs, torch.Tensor):
                assert ours.dtype == theirs.dtype and torch.equal(ours, theirs), field.name
            else:
                assert ours == theirs, field.name


def test_images_stay_where_they_are_as_long_as_somebody_holds_them(arrivals):
    table = _sent(pack(arrivals))
    (column,) = table.slice(1, 1)["images"].chunks
    buffer = column.buffers()[2]
    allocated = pa.total_allocated_bytes()
    found = unpack(table.slice(1, 1)).batch.images
    there = range(buffer.address, buffer.address + buffer.size)
    assert found.data_ptr() in there and pa.total_allocated_bytes() == allocated
    del table, column, buffer
    gc.collect()
    assert torch.equal(found, arrivals[1].batch.images)
    held = pa.total_allocated_bytes()
    del found
    gc.collect()
    assert pa.total_allocated_bytes() < held


def test_an_error_travels_as_itself():
    with pytest.raises(UserError, match="no such shard"):
        unpack(_sent(pack_error(UserError("no such shard"))))
