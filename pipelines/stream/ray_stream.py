"""The stream through Ray Data, in two modes with the same batches.

``worker``: the dataset carries block numbers only, and the worker's collate threads read and decode.
``actors``: Ray Data actors read, decode and collate, on any node of the cluster.
A worker has a dataset of its own, so no worker waits for another; order is Ray Data's ``preserve_order``.
"""

import logging
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.data.collate_fn import ArrowBatchCollateFn

from pipelines.config import Config
from pipelines.stream.assemble import Assembler
from pipelines.stream.carry import pack, pack_error, unpack
from pipelines.stream.layout import Layout
from pipelines.stream.plain import load_block
from pipelines.stream.stream import Arrival
from unigeoseg.errors import UserError

#: Blocks of one dataset. A run is a chain of datasets, so that opening one costs the same however long it is.
_LEG_BLOCKS = 4096


class _ReadInWorker(ArrowBatchCollateFn):
    def __init__(self, assembler: Assembler, layout: Layout) -> None:
        self._assembler, self._layout = assembler, layout

    def __call__(self, batch: pa.Table) -> list[Arrival]:
        return load_block(self._assembler, self._layout, batch["block"][0].as_py())


class _Unpack(ArrowBatchCollateFn):
    def __call__(self, batch: pa.Table) -> list[Arrival]:
        return [unpack(batch)]


class _ReadInActor:
    """The callable class of ``map_batches``: an actor with its own plan and reader."""

    def __init__(self, config: Config, store: str, tokenizer_path: str, layout: Layout) -> None:
        self._assembler, self._layout = Assembler(config, store, tokenizer_path), layout

    def __call__(self, batch: pa.Table) -> pa.Table:
        try:
            return pack(load_block(self._assembler, self._layout, batch["block"][0].as_py()))
        except UserError as error:
            return pack_error(error)


def ray_arrivals(
    assembler: Assembler, config: Config, store: str, tokenizer_path: str, layout: Layout
) -> Iterator[Arrival]:
    """The arrivals of a worker, by ``data.decode``.

    Raises:
        UserError: as raised where the data is read, in a thread or an actor.
    """
    collate = _ReadInWorker(assembler, layout) if config.data.decode == "worker" else _Unpack()
    for begin in range(0, layout.blocks, _LEG_BLOCKS):
        blocks = range(begin, min(begin + _LEG_BLOCKS, layout.blocks))
        dataset = _dataset(config, store, tokenizer_path, layout, blocks)
        batches = dataset.iterator().iter_torch_batches(
            batch_size=1, collate_fn=collate, prefetch_batches=config.data.prefetch_batches
        )
        for arrivals in batches:
            yield from arrivals


def _dataset(config: Config, store: str, tokenizer_path: str, layout: Layout, blocks: range) -> Any:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)  # a line for each dataset is too much
    if config.data.decode == "worker":
        # Not from_arrow: that runs a Ray task, which would wait for ever where the training workers hold all
        # CPUs of the cluster.
        dataset = ray.data.from_blocks([pa.table({"block": pa.array(blocks, pa.int64())})])
    else:
        # A Ray block each, so that each is a task of its own and the actors share them out in order.
        tables = [pa.table({"block": pa.array([number], pa.int64())}) for number in blocks]
        dataset = ray.data.from_blocks(tables).map_batches(
            _ReadInActor,
            batch_size=1,
            batch_format="pyarrow",
            fn_constructor_args=(config, store, tokenizer_path, layout),
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=config.data.actors),
            num_cpus=1,
        )
    dataset.context.execution_options.preserve_order = True
    return dataset
