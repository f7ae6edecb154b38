"""Finished blocks of work beside the store, so that an interrupted build goes on where it stopped."""

import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.build.config import BuildConfig
from pipelines.build.endpoint.usage import since, spent
from pipelines.build.process import Tile, process_item
from pipelines.build.sources.base import Source, SourceItem, UnusableImage
from pipelines.build.stages import StageCounts
from pipelines.storage import is_remote, open_filesystem
from pipelines.store.writer import atomic_write
from unigeoseg.errors import UserError

FOLDER = "_build"
_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("scene", pa.string()),
        ("group", pa.string()),
        ("extension", pa.string()),
        ("image", pa.binary()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("samples", pa.string()),
    ]
)


def stamp(items: list[SourceItem]) -> str:
    """What a block's images are now (names, and size and time of files), to tell when one was changed."""
    facts = []
    for item in items:
        facts.append(item.key)
        for name, value in sorted(item.detail.items()):
            facts.append(f"{name}={value}")
            file = Path(str(value))
            if isinstance(value, str) and file.is_file():
                status = file.stat()
                facts.append(f"{status.st_size} {status.st_mtime_ns}")
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()


def run_block(
    number: int, items: list[SourceItem], source: Source, config: BuildConfig, store: str
) -> dict[str, Any]:
    """Processes a block of images and writes its tiles and its report.

    Returns:
        The report: ``counts``, ``diversity`` (categories of every tile), ``bad`` (unusable images), and
        ``error`` if the source itself is wrong (nothing is written then).
    """
    counts, tiles, bad = StageCounts(), [], []
    before = spent(config, store)
    for item in items:
        try:
            tiles += process_item(source, item, config, counts, store)
        except UnusableImage as error:
            counts.add("read", 1, 0, {error.reason: 1})
            bad.append({"file": error.where, "reason": error.reason, "detail": error.detail})
        except UserError as error:
            return {"block": number, "error": str(error)}
    report = {
        "block": number,
        "stamp": stamp(items),
        "counts": counts.rows(),
        "diversity": [t.categories for t in tiles],
        "bad": bad,
        "usage": since(before, spent(config, store)),
        "candidates": [
            [s["sample_id"], s["task"], s["category_id"], t.categories] for t in tiles for s in t.samples
        ],
    }
    filesystem, root = open_filesystem(store)
    remote = is_remote(store)
    buffer = io.BytesIO()
    pq.write_table(_table([t for t in tiles if t.samples]), buffer, compression="none")
    with atomic_write(filesystem, f"{root}/{FOLDER}/part-{number:06d}.parquet", remote) as handle:
        handle.write(buffer.getvalue())
    with atomic_write(filesystem, f"{root}/{FOLDER}/part-{number:06d}.json", remote) as handle:
        handle.write(json.dumps(report).encode())
    return report


def _table(tiles: list[Tile]) -> pa.Table:
    columns = {
        name: [json.dumps(t.samples) if name == "samples" else getattr(t, name) for t in tiles]
        for name in _SCHEMA.names
    }
    return pa.table(columns, schema=_SCHEMA)


def finished_reports(store: str) -> dict[int, dict[str, Any]]:
    """Reports of the blocks that an earlier build finished, by number."""
    filesystem, root = open_filesystem(store)
    filesystem.invalidate_cache()
    found = {}
    for path in filesystem.glob(f"{root}/{FOLDER}/part-*.json"):
        report = json.loads(filesystem.cat_file(path))
        found[int(report["block"])] = report
    return found


def read_tiles(store: str, number: int) -> Iterator[dict[str, Any]]:
    """Tiles of a finished block, in order, with their samples decoded from JSON."""
    filesystem, root = open_filesystem(store)
    data = filesystem.cat_file(f"{root}/{FOLDER}/part-{number:06d}.parquet")
    for row in pq.read_table(io.BytesIO(data)).to_pylist():
        yield row | {"samples": json.loads(row["samples"])}
