"""Finished blocks of work beside the store, so that an interrupted build goes on where it stopped."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.build.config import BuildConfig
from pipelines.build.manifest import FOLDER, read_block, stamp
from pipelines.build.process import Tile, process_item
from pipelines.build.sources.base import Source, UnusableImage
from pipelines.build.stages import StageCounts
from pipelines.storage import is_remote, open_filesystem
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

    def close(self) -> None:
        self.flush()
        self._writer.close()


def run_block(number: int, source: Source, config: BuildConfig, store: str) -> dict[str, Any]:
    """Processes a block of images and writes its tiles and its report.

    Returns:
        The report: ``counts``, ``diversity`` (number of tiles by number of categories), ``bad`` (unusable
        images) and ``bad_items``, whose tiles in the part do not count.

    Raises:
        UserError: the source itself is wrong; nothing is written then.
    """
    items = read_block(store, number)
    counts, bad, bad_items = StageCounts(), [], []
    diversity: Counter[int] = Counter()
    filesystem, root = open_filesystem(store)
    remote = is_remote(store)
    with atomic_write(filesystem, part_path(root, number), remote) as handle:
        writer = _PartWriter(handle)
        for place, item in enumerate(items):
            own, shown = StageCounts(), Counter[int]()
            try:
                for tile in process_item(source, item, config, own):
                    shown[tile.categories] += 1
                    if tile.samples:
                        writer.add(place, tile)
            except UnusableImage as error:
                counts.add("read", 1, 0, {error.reason: 1})
                bad.append({"file": error.where, "reason": error.reason, "detail": error.detail})
                bad_items.append(place)
                continue
            counts.merge(own.rows())
            diversity.update(shown)
        writer.close()
    report = {
        "block": number,
        "stamp": stamp(items),
        "counts": counts.rows(),
        "diversity": sorted(diversity.items()),
        "bad": bad,
        "bad_items": bad_items,
    }
    with atomic_write(filesystem, report_path(root, number), remote) as handle:
        handle.write(json.dumps(report).encode())
    return report


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
    with filesystem.open(part_path(root, number), "rb") as handle:
        file = pq.ParquetFile(handle)
        for group in range(file.num_row_groups):
            for row in file.read_row_group(group, columns=names).to_pylist():
                if row["item"] not in bad:
                    yield row | {"samples": json.loads(row["samples"])}
