"""How micro-batches travel from Ray Data actors to the worker: a table with a row for each.

The actors make the tensors, so that the worker has as little to do as possible. Arrays go beside the pickle,
not through it, and masks take a bit a pixel: the object store holds little more than the pixels themselves.
"""

import dataclasses
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from pipelines.stream.stream import Arrival
from unigeoseg.errors import UserError
from unigeoseg.samples.batch import Batch

_PROTOCOL = 5


def pack(arrivals: Sequence[Arrival]) -> pa.Table:
    """A block's micro-batches: ``head`` (a pickle), ``images``, ``body`` (the other arrays, end to end)."""
    heads, images, bodies = [], [], []
    for arrival in arrivals:
        fields, arrays, masks = _apart(arrival.batch)
        shapes = [(array.dtype.str, array.shape) for array in arrays]
        news = (arrival.micro, arrival.events, arrival.read)
        heads.append(pickle.dumps((news, fields, shapes, masks), protocol=_PROTOCOL))
        # Arrow arrays around the bytes: the images' only copy is the one into the object store.
        pixels, *others = [array.reshape(-1).view(np.uint8) for array in arrays]
        images.append(_binary(pixels))
        bodies.append(_binary(np.concatenate(others)))
    return _table(heads, images, bodies)


def pack_error(error: UserError) -> pa.Table:
    """A table that makes :func:`unpack` raise ``error``: Ray's own wrapping loses what caused a failure."""
    nothing = _binary(np.empty(0, np.uint8))
    return _table([pickle.dumps(str(error), protocol=_PROTOCOL)], [nothing], [nothing])


def _table(
    heads: list[bytes], images: list[pa.LargeBinaryArray], bodies: list[pa.LargeBinaryArray]
) -> pa.Table:
    kind = pa.large_binary()
    columns = {"images": pa.chunked_array(images, kind), "body": pa.chunked_array(bodies, kind)}
    return pa.table({"head": pa.array(heads, kind), **columns})


def unpack(table: pa.Table) -> Arrival:
    """The one row of a table of :func:`pack`, as it was.

    The images stay where they are, in the object store, and are not to be written to; they go from there when
    nobody holds them any more.

    Raises:
        UserError: it is a row of :func:`pack_error`.
    """
    # The bytes come from our own actors, over Ray's object store, which itself is pickle.
    content = pickle.loads(_only(table["head"]))
    if isinstance(content, str):
        raise UserError(content)
    (micro, events, read), fields, shapes, masks = content
    body = np.frombuffer(_only(table["body"]), np.uint8)
    (kind, shape), *others = shapes
    arrays, at = [np.asarray(_Pixels(_only(table["images"]))).view(kind).reshape(shape)], 0
    for kind, shape in others:
        size = np.dtype(kind).itemsize * int(np.prod(shape))
        arrays.append(body[at : at + size].copy().view(kind).reshape(shape))
        at += size
    return Arrival(micro, _together(fields, arrays, masks), events, read)


def _only(column: pa.ChunkedArray) -> pa.Buffer:
    """The bytes of a column's one row, where they are: Arrow's scalars are copies."""
    (values,) = (chunk for chunk in column.chunks if len(chunk))
    _, ends, data = values.buffers()
    begin, end = np.frombuffer(ends, np.int64)[values.offset : values.offset + 2]
    return data.slice(int(begin), int(end - begin))


class _Pixels:
    """An array over the bytes of a buffer that holds on to it.

    Called writable, which no one makes use of: PyTorch takes no array that is not.
    """

    def __init__(self, buffer: pa.Buffer) -> None:
        self._buffer = buffer
        place = (buffer.address, False)
        self.__array_interface__ = {"shape": (buffer.size,), "typestr": "|u1", "data": place, "version": 3}


def _apart(batch: Batch) -> tuple[dict[str, Any], list[NDArray[Any]], tuple[int, ...] | None]:
    """Fields (a tensor's value is the number of its array), arrays, and the shape of packed masks.

    The first array holds the images.
    """
    fields: dict[str, Any] = {}
    arrays: list[NDArray[Any]] = []
    for name in sorted((f.name for f in dataclasses.fields(batch)), key=lambda name: name != "images"):
        value = getattr(batch, name)
        if not isinstance(value, torch.Tensor):
            fields[name] = (None, value)
            continue
        fields[name] = (len(arrays), None)
        array = value.numpy()
        arrays.append(np.packbits(array) if name == "masks" else np.ascontiguousarray(array))
    return fields, arrays, None if batch.masks is None else tuple(batch.masks.shape)


def _together(fields: dict[str, Any], arrays: list[NDArray[Any]], masks: tuple[int, ...] | None) -> Batch:
    values: dict[str, Any] = {
        n: v if at is None else torch.from_numpy(arrays[at]) for n, (at, v) in fields.items()
    }
    if masks is not None:
        bits = np.unpackbits(values["masks"].numpy(), count=int(np.prod(masks)))
        values["masks"] = torch.from_numpy(bits.reshape(masks))
    return Batch(**values)


def _binary(data: NDArray[np.uint8]) -> pa.LargeBinaryArray:
    """One value around ``data``, without a copy."""
    ends = pa.py_buffer(np.array([0, len(data)], np.int64))
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), 1, [None, ends, pa.py_buffer(data)])
