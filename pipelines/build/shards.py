"""Which image goes to which shard, and the writing of single shards, each of which is resumed alone."""

import hashlib
import io
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.build.balance import Balance
from pipelines.build.manifest import FOLDER
from pipelines.build.parts import read_tiles
from pipelines.build.split import Splits
from pipelines.build.variety import Variety
from pipelines.labels.stages import StageCounts
from pipelines.storage.ahead import ahead
from pipelines.storage.filesystem import is_remote, open_filesystem
from pipelines.storage.parquet import parquet_bytes
from pipelines.store.writer import INDEX_SCHEMA, ShardWriter, atomic_write, shard_path, store_block


@dataclass(frozen=True)
class Documents:
    """Makes the store's JSON documents from tiles.

    Attributes:
        store: folder or prefix.
        source: name of the source.
        licence: of the source.
        splits: which split a group is in.
        balance: which samples stay.
    """

    store: str
    source: str
    licence: str
    splits: Splits
    balance: Balance

    def of(
        self, block: int, images: bool, counts: StageCounts | None = None
    ) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """``(tile, document)`` of each tile of a block that keeps a sample."""
        for tile in read_tiles(self.store, block, images):
            samples = self.balance.keep(tile, counts)
            if samples:
                yield tile, self._document(tile, samples)

    def _document(self, tile: Mapping[str, Any], samples: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "key": tile["key"],
            "image": {
                "file": f"{tile['key']}.{tile['extension']}",
                "height": tile["height"],
                "width": tile["width"],
            },
            "source": self.source,
            "scene": tile["scene"],
            "split": self.splits.of(tile["group"], tile["own_split"]),
            "licence": self.licence,
            "samples": samples,
        }


def measure_block(documents: Documents, block: int) -> dict[str, Any]:
    """Splits and sizes of a block's images in a shard, the counts of the last selection, and its words.

    Returns:
        ``{"counts": rows, "sizes": {split: int64 array}, "variety": kept texts}``, sizes in the order of the
        images.
    """
    counts, variety = StageCounts(), Variety()
    sizes: dict[str, list[int]] = defaultdict(list)
    samples = 0
    for tile, document in documents.of(block, images=False, counts=counts):
        empty = len(store_block(document, b""))
        sizes[document["split"]].append(empty + -(-tile["nbytes"] // 512) * 512)
        samples += len(document["samples"])
        variety.add(document["samples"])
    counts.add("write", samples, samples)
    return {
        "counts": counts.rows(),
        "sizes": {s: np.asarray(v, np.int64) for s, v in sizes.items()},
        "variety": variety.kept(),
    }


@dataclass(frozen=True)
class Shard:
    """A shard to be written.

    Attributes:
        path: in the store.
        split: of its images.
        parts: block, and its first and last image of this split (half open), in order.
    """

    path: str
    split: str
    parts: tuple[tuple[int, int, int], ...]

    def stamp(self, documents: Documents, stamps: Mapping[int, str]) -> str:
        """Changes with whatever decides the shard's bytes."""
        facts: list[Any] = [self.path, self.parts, [stamps[block] for block, _, _ in self.parts]]
        facts += [documents.balance.cutoff, sorted(documents.balance.last.items())]
        if documents.balance.shown is not None:
            facts.append(sorted(documents.balance.shown))
        return hashlib.sha256(repr(facts).encode()).hexdigest()


class Packing:
    """Fills the shards of each split one after the other with images in the order of the source.

    Args:
        shard_bytes: a shard that has reached this size is closed.
    """

    def __init__(self, shard_bytes: int) -> None:
        self._limit = shard_bytes
        self._shards: list[Shard] = []
        self._open: dict[str, list[tuple[int, int, int]]] = {}
        self._bytes: dict[str, int] = {}
        self._numbers: dict[str, int] = {}

    def add(self, block: int, sizes: Mapping[str, np.ndarray]) -> None:
        """Places the images of the next block."""
        for split in sorted(sizes):
            first = 0
            for place, size in enumerate(sizes[split].tolist()):
                self._bytes[split] = self._bytes.get(split, 0) + size
                if self._bytes[split] >= self._limit:
                    self._open.setdefault(split, []).append((block, first, place + 1))
                    self._close(split)
                    first = place + 1
            if first < len(sizes[split]):
                self._open.setdefault(split, []).append((block, first, len(sizes[split])))

    def shards(self) -> list[Shard]:
        """All shards, sorted by path."""
        for split in list(self._open):
            self._close(split)
        return sorted(self._shards, key=lambda shard: shard.path)

    def _close(self, split: str) -> None:
        number = self._numbers.get(split, 0)
        self._numbers[split] = number + 1
        self._shards.append(Shard(shard_path(split, number), split, tuple(self._open.pop(split))))
        self._bytes[split] = 0


def write_shard(shard: Shard, documents: Documents, stamp: str) -> dict[str, Any]:
    """Writes a shard, its index rows and, last, its entry of the card; gives the entry."""
    writer = ShardWriter(documents.store, shard.path, shard.split)
    try:
        for block, first, last in shard.parts:
            place = 0
            for tile, document in documents.of(block, images=True):
                if document["split"] != shard.split:
                    continue
                if first <= place < last:
                    writer.add(document, tile["image"])
                place += 1
                if place >= last:
                    break
    except BaseException:
        writer.abort()
        raise
    entry = writer.close()
    keep_shard(documents.store, writer, {"stamp": stamp, "entry": entry})
    return entry


def keep_shard(store: str, writer: ShardWriter, note: Mapping[str, Any]) -> None:
    """Writes beside the store a finished shard's index rows and, last, a note, which has its entry."""
    filesystem, root = open_filesystem(store)
    remote = is_remote(store)
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(writer.rows, schema=INDEX_SCHEMA), buffer)
    with atomic_write(filesystem, _side(root, writer.path, "parquet"), remote) as handle:
        handle.write(buffer.getvalue())
    with atomic_write(filesystem, _side(root, writer.path, "json"), remote) as handle:
        handle.write(json.dumps(note).encode())


def kept_shard(store: str, path: str) -> dict[str, Any] | None:
    """The note of a shard that an earlier run finished, if the shard is there whole."""
    filesystem, root = open_filesystem(store)
    try:
        found: dict[str, Any] = json.loads(filesystem.cat_file(_side(root, path, "json")))
        size = filesystem.size(f"{root}/{path}")
    except (FileNotFoundError, ValueError):
        return None
    return found if size == found["entry"]["bytes"] else None


def _side(root: str, path: str, kind: str) -> str:
    return f"{root}/{FOLDER}/{path.rpartition('/')[2].removesuffix('.tar')}.{kind}"


def finished_entry(store: str, shard: Shard, stamp: str) -> dict[str, Any] | None:
    """The entry of a shard that an earlier run wrote from the same input, if it is there whole."""
    found = kept_shard(store, shard.path)
    entry: dict[str, Any] | None = found["entry"] if found and found["stamp"] == stamp else None
    return entry


def shard_rows(store: str, paths: Iterable[str]) -> Iterator[pa.Table]:
    """Index rows of written shards, in order."""
    filesystem, root = open_filesystem(store)
    for data in ahead(lambda path: filesystem.cat_file(_side(root, path, "parquet")), paths, 8):
        yield pq.read_table(parquet_bytes(data))
