"""Finished blocks of work beside the store, so that an interrupted build goes on where it stopped."""

import json
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.build.describe import open_describer
from pipelines.build.endpoint.usage import since, spent
from pipelines.build.manifest import FOLDER, read_block, stamp
from pipelines.build.paste import Cutouts
from pipelines.build.process import Draft, categories_of, pasted_item, process_item
from pipelines.build.seeds import generator
from pipelines.build.sources.base import Source, UnusableImage
from pipelines.build.split import Splits
from pipelines.build.tile import Tile
from pipelines.config.building import BuildConfig
from pipelines.labels.stages import StageCounts
from pipelines.storage.ahead import ahead
from pipelines.storage.filesystem import is_remote, open_filesystem
from pipelines.storage.parquet import parquet_file
from pipelines.store.writer import atomic_write

#: Encoded images held before they are written; also the size of a row group.
_FLUSH_BYTES = 32 * 1024 * 1024
_FLUSH_TILES = 512
_SCHEMA = pa.schema(
    [
        ("item", pa.int32()),
        ("key", pa.string()),
        ("scene", pa.string()),
        ("group", pa.string()),
        ("own_split", pa.string()),
        ("extension", pa.string()),
        ("image", pa.binary()),
        ("nbytes", pa.int64()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("categories", pa.int32()),
        ("samples", pa.string()),
    ]
)


class _PartWriter:
    """Writes tiles as they come; memory holds one row group."""

    def __init__(self, handle: Any) -> None:
        self._writer = pq.ParquetWriter(handle, _SCHEMA, compression="none")
        self._tiles: list[tuple[int, Tile]] = []
        self._bytes = 0

    def add(self, item: int, tile: Tile) -> None:
        self._tiles.append((item, tile))
        self._bytes += len(tile.image)
        if self._bytes >= _FLUSH_BYTES or len(self._tiles) >= _FLUSH_TILES:
            self.flush()

    def flush(self) -> None:
        if self._tiles:
            self._writer.write_table(_table(self._tiles))
            self._tiles, self._bytes = [], 0

    def __enter__(self) -> "_PartWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.flush()
            self._writer.close()
            return
        with suppress(OSError):  # the file is given up; it only must not be written to after its end
            self._writer.close()


class _Block:
    """Tiles of a block on their way into a part, some of them begun ahead of the one that is waited for."""

    def __init__(self, writer: _PartWriter, ahead: int) -> None:
        self._writer, self._ahead = writer, ahead
        self._waiting: deque[tuple[int, Draft]] = deque()
        self.bad: dict[int, dict[str, str]] = {}
        self.counts: dict[int, StageCounts] = {}
        self.seen: dict[int, set[int]] = {}
        self.shown: dict[int, Counter[int]] = {}

    def take(self, place: int, drafts: Iterator[Draft], counts: StageCounts) -> None:
        """The drafts of an image."""
        self.counts[place], self.shown[place], self.seen[place] = counts, Counter(), set()
        try:
            for draft in drafts:
                self.shown[place][draft.categories] += 1
                self.seen[place] |= draft.present
                self._waiting.append((place, draft))
                self.finish(self._ahead)
        except UnusableImage as error:
            self._refuse(place, error)

    def paste(self, place: int, drafts: Iterator[Draft]) -> None:
        """Drafts of the same image with pasted objects; how many categories they show decides nothing."""
        try:
            for draft in drafts:
                self._waiting.append((place, draft))
                self.finish(self._ahead)
        except UnusableImage as error:
            self._refuse(place, error)

    def _refuse(self, place: int, error: UnusableImage) -> None:
        self.bad[place] = {"file": error.where, "reason": error.reason, "detail": error.detail}

    def finish(self, left: int = 0) -> None:
        """Writes tiles until only so many are left."""
        while len(self._waiting) > left:
            place, draft = self._waiting.popleft()
            if place not in self.bad and (tile := draft.finish()).samples:
                self._writer.add(place, tile)


def run_block(
    number: int, source: Source, config: BuildConfig, store: str, splits: Splits, cutoff: float = 0.0
) -> dict[str, Any]:
    """Processes a block of images and writes its tiles and its report.

    Args:
        number: of the block.
        source: adapter.
        config: of the build.
        store: folder or prefix.
        splits: which images are for training; objects are pasted among those of a block.
        cutoff: fewest categories of a tile that an endpoint is asked to reason about.

    Returns:
        The report: ``counts``, ``diversity`` (number of tiles by number of categories), ``bad`` (unusable
        images), ``bad_items``, whose tiles in the part do not count, ``usage`` of the endpoint, and, where
        absent instructions are written, ``shown``: the categories that are labelled anywhere.

    Raises:
        UserError: the source itself is wrong, or the endpoint cannot be used; nothing is written then.
    """
    items = read_block(store, number)
    before = spent(config, store)
    filesystem, root = open_filesystem(store)
    remote = is_remote(store)
    with (
        atomic_write(filesystem, part_path(root, number), remote) as handle,
        _PartWriter(handle) as writer,
        open_describer(config, store, cutoff) as describe,
    ):
        block = _Block(writer, describe.ahead)
        training = set[int]()
        cutouts = None
        if config.paste.copies:
            training = {n for n, item in enumerate(items) if splits.of(item.group, item.split) == "train"}
            cutouts = Cutouts(config.paste, generator(config.seed, "cutouts", source.name, items[0].key))
        for place, item in enumerate(items):
            counts = StageCounts()
            offered = cutouts if place in training else None
            drafts = process_item(source, item, config, counts, describe, cutouts=offered)
            block.take(place, drafts, counts)
        if cutouts is not None:
            for place in sorted(training - block.bad.keys()):
                own = block.counts[place]
                block.paste(place, pasted_item(source, items[place], config, own, describe, cutouts))
        block.finish()
    total, diversity, seen = StageCounts(), Counter[int](), set[int]()
    for place, counts in block.counts.items():
        if place in block.bad:
            total.add("read", 1, 0, {block.bad[place]["reason"]: 1})
        else:
            total.merge(counts.rows())
            diversity.update(block.shown[place])
            seen |= block.seen[place]
    report = {
        "block": number,
        "stamp": stamp(items),
        "counts": total.rows(),
        "diversity": sorted(diversity.items()),
        "bad": list(block.bad.values()),
        "bad_items": list(block.bad),
        "usage": since(before, spent(config, store)),
    } | ({"shown": sorted(seen)} if config.instruct.absent else {})
    with atomic_write(filesystem, report_path(root, number), remote) as handle:
        handle.write(json.dumps(report).encode())
    return report


def count_block(number: int, source: Source, config: BuildConfig, store: str) -> dict[str, Any]:
    """Number of tiles by number of categories, of the usable images of a block; nothing is written.

    Raises:
        UserError: the source itself is wrong.
    """
    diversity: Counter[int] = Counter()
    for item in read_block(store, number):
        with suppress(UnusableImage):  # named and counted when the tiles are made
            diversity.update(categories_of(source, item, config))
    return {"diversity": sorted(diversity.items())}


def part_path(root: str, number: int) -> str:
    """Where the tiles of a block stand."""
    return f"{root}/{FOLDER}/part-{number:06d}.parquet"


def report_path(root: str, number: int) -> str:
    """Where the report of a block stands; it is written last."""
    return f"{root}/{FOLDER}/part-{number:06d}.json"


def _table(tiles: list[tuple[int, Tile]]) -> pa.Table:
    columns: dict[str, list[Any]] = {
        name: [json.dumps(t.samples) if name == "samples" else getattr(t, name) for _, t in tiles]
        for name in _SCHEMA.names
        if name != "item"
    }
    return pa.table({"item": [place for place, _ in tiles]} | columns, schema=_SCHEMA)


def finished_blocks(store: str) -> set[int]:
    """Numbers of the blocks that an earlier build finished."""
    filesystem, root = open_filesystem(store)
    filesystem.invalidate_cache()
    paths = filesystem.glob(f"{root}/{FOLDER}/part-*.json")
    return {int(path.rpartition("part-")[2].removesuffix(".json")) for path in paths}


def read_report(store: str, number: int) -> dict[str, Any]:
    """The report of a finished block."""
    filesystem, root = open_filesystem(store)
    report: dict[str, Any] = json.loads(filesystem.cat_file(report_path(root, number)))
    return report


def read_reports(store: str, numbers: Iterable[int]) -> Iterator[dict[str, Any]]:
    """The reports of finished blocks in the order asked for, many requests at a time."""
    filesystem, root = open_filesystem(store)
    texts = ahead(lambda number: filesystem.cat_file(report_path(root, number)), numbers)
    return (json.loads(text) for text in texts)


def read_tiles(store: str, number: int, images: bool = True) -> Iterator[dict[str, Any]]:
    """Tiles of a finished block, in order, with their samples decoded from JSON.

    Args:
        store: folder or prefix.
        number: of the block.
        images: without them only ``nbytes``, their length, is given; the bytes are not read from the disk.
    """
    filesystem, root = open_filesystem(store)
    bad = set(read_report(store, number)["bad_items"])
    names: Sequence[str] = [n for n in _SCHEMA.names if images or n != "image"]
    with parquet_file(filesystem, part_path(root, number)) as file:
        for group in range(file.num_row_groups):
            for row in file.read_row_group(group, columns=names, use_threads=False).to_pylist():
                if row["item"] not in bad:
                    yield row | {"samples": json.loads(row["samples"])}
