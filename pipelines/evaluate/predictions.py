"""The predictions of an evaluation on this machine's disk, of which a few are looked at again."""

import tempfile
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

#: Columns of a worker's table that are kept here.
PREDICTIONS = ("prediction", "size")


class Predictions:
    """Masks by row of the index, as portions bring them; memory holds where each stands."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="unigeoseg-predictions-")  # noqa: SIM115
        self._places: list[tuple[int, int]] = []
        self._rows: list[NDArray[np.int64]] = []
        #: How many portions were read again.
        self.reads = 0

    def add(self, table: pa.Table) -> None:
        """Keeps the predictions of a portion; ``table`` has the column ``row`` beside them."""
        part = table.select(["row", *PREDICTIONS])
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, part.schema) as writer:
            writer.write_table(part)
        data = sink.getvalue()
        self._places.append((self._file.seek(0, 2), data.size))
        self._file.write(data)
        self._rows.append(part["row"].to_numpy())

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> pa.Table:
        """Columns :data:`PREDICTIONS` of these rows, in the order asked for.

        Raises:
            KeyError: a row has no prediction.
        """
        wanted = np.asarray(rows, np.int64)
        parts, order = [], []
        for number, own in enumerate(self._rows):
            chosen = np.flatnonzero(np.isin(wanted, own))
            if len(chosen):
                sorter = np.argsort(own)
                places = sorter[np.searchsorted(own, wanted[chosen], sorter=sorter)]
                parts.append(self._read(number).select(list(PREDICTIONS)).take(pa.array(places)))
                order.append(chosen)
        if sum(map(len, order)) != len(wanted):
            raise KeyError("a row without a prediction was asked for")
        if not parts:
            return pa.table(
                {"prediction": pa.array([], pa.string()), "size": pa.array([], pa.list_(pa.int32()))}
            )
        back = np.argsort(np.concatenate(order))
        return pa.concat_tables(parts).combine_chunks().take(pa.array(back))

    def _read(self, number: int) -> pa.Table:
        start, length = self._places[number]
        self._file.seek(start)
        self.reads += 1
        return pa.ipc.open_stream(self._file.read(length)).read_all()
