"""How filled micro-batches travel between Ray Data actors and the worker: one binary column, a row each."""

import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.store.reader import ReadStats
from pipelines.stream.assemble import Block, Filled
from pipelines.stream.quarantine import BadSampleEvent
from unigeoseg.batch import ImageGroup, Sample
from unigeoseg.errors import UserError

_PROTOCOL = 5
_Packed = tuple[NDArray[np.uint8], tuple[int, ...]]


def pack(block: Block) -> pa.Table:
    """A block as a table with a row for each micro-batch; masks take a bit a pixel."""
    rows = []
    for i, filled in enumerate(block.filled):
        groups = [(g.image, [_thin(s) for s in g.samples]) for g in filled.groups]
        news = (block.events, block.stats) if i == 0 else ([], ReadStats())
        rows.append(pickle.dumps((filled.micro, groups, news), protocol=_PROTOCOL))
    return pa.table({"micro": pa.array(rows, pa.large_binary())})


def pack_error(error: UserError) -> pa.Table:
    """A table that makes :func:`unpack` raise ``error``: Ray's own wrapping loses what caused a failure."""
    return pa.table({"micro": pa.array([pickle.dumps(str(error), protocol=_PROTOCOL)], pa.large_binary())})


def unpack(table: pa.Table) -> tuple[Filled, list[BadSampleEvent], ReadStats]:
    """The one row of a table of :func:`pack`, as it was.

    Raises:
        UserError: it is a row of :func:`pack_error`.
    """
    # The bytes come from our own actors, over Ray's object store, which itself is pickle.
    content = pickle.loads(table["micro"][0].as_buffer())
    if isinstance(content, str):
        raise UserError(content)
    micro, packed, (events, stats) = content
    groups = [ImageGroup(image, tuple(_full(*thin) for thin in samples)) for image, samples in packed]
    return Filled(micro, groups), events, stats


def _thin(sample: Sample) -> tuple[Sample, _Packed | None]:
    if sample.mask is None:
        return sample, None
    return replace(sample, mask=None), (np.packbits(sample.mask), sample.mask.shape)


def _full(sample: Sample, packed: _Packed | None) -> Sample:
    if packed is None:
        return sample
    bits, shape = packed
    mask: Any = np.unpackbits(bits, count=int(np.prod(shape))).reshape(shape)
    return replace(sample, mask=mask)
