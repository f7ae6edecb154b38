"""The stream through Ray Data, in two modes with the same batches.

``worker``: the dataset carries block numbers only, and the worker's collate threads read and decode.
``actors``: Ray Data actors read, decode and collate, on any node of the cluster.
A worker has a dataset of its own, so no worker waits for another; order is Ray Data's ``preserve_order``.
"""

import logging
from collections.abc import Iterator
from functools import partial
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.data.collate_fn import ArrowBatchCollateFn

from pipelines.config import Config
from pipelines.stream.assemble import Assembler
from pipelines.stream.carry import pack, pack_error, unpack
from pipelines.stream.layout import Layout
from pipelines.stream.legs import PATIENCE_S, CpuWatch, Leg, Started, chained
from pipelines.stream.plain import load_block
from pipelines.stream.stream import Arrival
from unigeoseg.errors import UserError

#: Blocks of one dataset.
_LEG_BLOCKS = 4096
#: The next dataset is started so many blocks before the end of one.
_AHEAD_BLOCKS = 64


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
    in_worker = config.data.decode == "worker"
    collate = _ReadInWorker(assembler, layout) if in_worker else _Unpack()

    def batches(blocks: range) -> Iterator[list[Arrival]]:
        dataset = _dataset(config, store, tokenizer_path, layout, blocks)
        found = dataset.iterator().iter_torch_batches(
            batch_size=1, collate_fn=collate, prefetch_batches=config.data.prefetch_batches
        )
        return iter(found)

    # An item is a block where the worker reads, a micro-batch where actors do.
    per_block = 1 if in_worker else layout.block_micros
    begins = range(0, layout.blocks, _LEG_BLOCKS)
    spans = (range(begin, min(begin + _LEG_BLOCKS, layout.blocks)) for begin in begins)
    legs = (Leg(len(blocks) * per_block, partial(batches, blocks)) for blocks in spans)
    watch = _no_watch if in_worker else CpuWatch(_ReadInActor.__name__, PATIENCE_S)
    for arrivals in chained(legs, _AHEAD_BLOCKS * per_block, watch):
        yield from arrivals


def _no_watch(started: Started[Any]) -> None:
    """What runs in the worker itself finds its CPU there."""


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
        most = max(1, config.data.actors // layout.world)
        # A Ray block each, so that each is a task of its own and the actors share them out in order.
        tables = [pa.table({"block": pa.array([number], pa.int64())}) for number in blocks]
        dataset = ray.data.from_blocks(tables).map_batches(
            _ReadInActor,
            batch_size=1,
            batch_format="pyarrow",
            fn_constructor_args=(config, store, tokenizer_path, layout),
            # All at once: Ray Data would add them one by one, as it sees that one is too slow.
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=most, initial_size=most),
            num_cpus=1,
        )
    dataset.context.execution_options.preserve_order = True
    return dataset
