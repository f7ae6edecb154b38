"""All images of a store in the order of its shards; memory holds a few windows of a shard."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.storage.ahead import ahead
from pipelines.store.fetch import FetchStats, RangeFetcher
from pipelines.store.index import StoreIndex, coded
from pipelines.store.writer import SCHEMA_VERSION
from unigeoseg.errors import UserError

#: Bytes that are asked for at a time.
WINDOW = 16 * 1024 * 1024
#: Windows that are read at a time, and so in memory.
_WINDOWS_AT_ONCE = 4


@dataclass(frozen=True)
class Place:
    """Where an image stands.

    Attributes:
        shard: path in the store.
        offset: of its fragment in the shard.
        nbytes: of its fragment.
        row: its first row in the index.
        rows: how many rows it has there.
    """

    shard: str
    offset: int
    nbytes: int
    row: int
    rows: int


class Places(Sequence[Place]):
    """The images of an index, as columns: a :class:`Place` is made when it is asked for.

    Args:
        shards: names by number.
        columns: int64 ``[5, I]``: number of the shard, offset, bytes, first row, rows.
    """

    def __init__(self, shards: Sequence[str], columns: NDArray[np.int64]) -> None:
        self._shards, self._columns = shards, columns

    def __len__(self) -> int:
        return int(self._columns.shape[1])

    @overload
    def __getitem__(self, number: int) -> Place: ...
    @overload
    def __getitem__(self, number: slice) -> "Places": ...
    def __getitem__(self, number: int | slice) -> "Place | Places":
        if isinstance(number, slice):
            return Places(self._shards, self._columns[:, number])
        shard, offset, nbytes, row, rows = self._columns[:, number].tolist()
        return Place(self._shards[shard], offset, nbytes, row, rows)

    @property
    def first_rows(self) -> NDArray[np.int64]:
        """The first row of each image in the index; int64 ``[I]``."""
        return self._columns[3]

    def by_shard(self) -> Iterator["Places"]:
        """Runs of images that stand in one shard, in order."""
        cuts = np.flatnonzero(np.diff(self._columns[0])) + 1
        ends = [0, *cuts.tolist(), len(self)]
        return (self[a:b] for a, b in pairwise(ends) if b > a)


def open_all_splits(store: str) -> StoreIndex:
    """The index of a finished store, not limited to one split: split after split.

    A store that was built or merged has its splits one after the other; of another one the rows are copied.

    Raises:
        UserError: as :meth:`StoreIndex.open`.
    """
    index = StoreIndex.open_all(store)
    codes, names = coded(index.table["split"])
    lost = sorted(set(index.card.get("counts", {}).get("split", {})) - set(names))
    if lost:
        raise UserError(f"the store {store} has no samples in split {lost[0]!r}: it has {sorted(names)}")
    rank = np.argsort(np.argsort(names))[codes]
    if (np.diff(rank) >= 0).all():
        return index
    order = pa.array(np.argsort(rank, kind="stable"))
    return StoreIndex(index.store, index.split, index.table.take(order).combine_chunks(), index.card)


def check_schema(index: StoreIndex) -> None:
    """Refuses a store of another version than this program writes.

    Raises:
        UserError: names both versions.
    """
    found = index.card.get("schema_version")
    if found != SCHEMA_VERSION:
        raise UserError(
            f"{index.store} has schema version {found}, this program writes {SCHEMA_VERSION}: build it again"
        )


def places(index: StoreIndex) -> Places:
    """Every image of the index, in its order."""
    codes, names = coded(index.table["shard"])
    starts = np.flatnonzero(np.diff(index.images, prepend=-1)) if len(index) else np.zeros(0, np.int64)
    rows = np.diff(np.append(starts, len(index)))
    offset, nbytes = (index.table[name].to_numpy()[starts] for name in ("offset", "nbytes"))
    return Places(names, np.stack([codes[starts], offset, nbytes, starts, rows]).astype(np.int64))


def fragments(
    store: str, wanted: Iterable[Place], window: int | None = None
) -> Iterator[tuple[Place, bytes]]:
    """Each image's tar fragment, in the order given.

    Images that stand side by side come with one request, and the next windows are read while one is used.

    Raises:
        UserError: a shard is missing or out of reach.
    """
    fetcher = RangeFetcher(store)

    def read(group: list[Place]) -> list[tuple[Place, bytes]]:
        spans = list(_spans(group))
        ranges = [(s[0].shard, s[0].offset, s[-1].offset + s[-1].nbytes - s[0].offset) for s in spans]
        found: list[tuple[Place, bytes]] = []
        for span, data in zip(spans, fetcher.fetch(ranges, FetchStats()), strict=True):
            first = span[0].offset
            found += [(p, data[p.offset - first : p.offset - first + p.nbytes]) for p in span]
        return found

    for found in ahead(read, _windows(wanted, window or WINDOW), _WINDOWS_AT_ONCE, waiting=_WINDOWS_AT_ONCE):
        yield from found


def _windows(wanted: Iterable[Place], window: int) -> Iterator[list[Place]]:
    group: list[Place] = []
    size = 0
    for place in wanted:
        if group and size + place.nbytes > window:
            yield group
            group, size = [], 0
        group.append(place)
        size += place.nbytes
    if group:
        yield group


def _spans(group: list[Place]) -> Iterator[list[Place]]:
    """Runs of images each of which begins where the one before it ends."""
    span: list[Place] = []
    for place in group:
        if span and (place.shard, place.offset) != (span[-1].shard, span[-1].offset + span[-1].nbytes):
            yield span
            span = []
        span.append(place)
    if span:
        yield span


def of_split(index: StoreIndex, split: str) -> StoreIndex:
    """The rows of one split, which may be none; not copied where they stand together."""
    (table,) = [rows for name, rows in parted(index.table, "split") if name == split] or [index.table[:0]]
    return StoreIndex(index.store, split, table, index.card)


def parted(table: pa.Table, column: str) -> Iterator[tuple[str, pa.Table]]:
    """The rows of each text of a column, the texts in alphabetical order, the rows in theirs.

    The column is looked at once for all of its texts. Rows that stand together are not copied.
    """
    codes, names = coded(table[column])
    if not len(codes):
        return
    order: NDArray[np.int64] | None = None
    if int(np.count_nonzero(np.diff(codes))) != len(np.unique(codes)) - 1:
        order = np.argsort(codes, kind="stable")
        codes = codes[order]
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    ends = np.append(starts[1:], len(codes))
    for name, start, end in sorted(zip((names[c] for c in codes[starts]), starts, ends, strict=True)):
        rows = table[start:end] if order is None else table.take(pa.array(order[start:end]))
        yield name, rows
