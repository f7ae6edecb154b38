"""All images of a store in the order of its shards; memory holds one window of a shard."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.store.fetch import FetchStats, RangeFetcher
from pipelines.store.index import StoreIndex, read_card
from pipelines.store.writer import SCHEMA_VERSION
from unigeoseg.errors import UserError

#: Bytes that are asked for at a time.
WINDOW = 16 * 1024 * 1024


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


def open_all_splits(store: str) -> StoreIndex:
    """The index of a finished store, not limited to one split.

    Raises:
        UserError: as :meth:`StoreIndex.open`.
    """
    card = read_card(store)
    splits = sorted(card.get("counts", {}).get("split", {})) or ["train"]
    tables = [StoreIndex.open(store, split).table for split in splits]
    return StoreIndex(store, "all", pa.concat_tables(tables).combine_chunks(), card)


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


def places(index: StoreIndex) -> list[Place]:
    """Every image of the index, in its order."""
    if not len(index):
        return []
    starts = np.unique(index.images, return_index=True)[1]
    counts = np.diff([*starts.tolist(), len(index)])
    part = index.table.select(["shard", "offset", "nbytes"]).take(pa.array(starts)).to_pydict()
    return [
        Place(shard, offset, nbytes, int(row), int(count))
        for shard, offset, nbytes, row, count in zip(
            part["shard"], part["offset"], part["nbytes"], starts, counts, strict=True
        )
    ]


def fragments(store: str, wanted: list[Place], window: int = WINDOW) -> Iterator[tuple[Place, bytes]]:
    """Each image's tar fragment, in the order given.

    Raises:
        UserError: a shard is missing or out of reach.
    """
    fetcher, stats = RangeFetcher(store), FetchStats()
    for group in _windows(wanted, window):
        ranges = [(place.shard, place.offset, place.nbytes) for place in group]
        yield from zip(group, fetcher.fetch(ranges, stats), strict=True)


def _windows(wanted: list[Place], window: int) -> Iterator[list[Place]]:
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


def of_split(index: StoreIndex, split: str) -> StoreIndex:
    """The rows of one split, which may be none."""
    table = index.table.filter(pc.field("split") == split).combine_chunks()
    return StoreIndex(index.store, split, table, index.card)
