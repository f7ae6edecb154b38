"""What a build works on: the source's images in blocks, listed once, so that nobody holds all of it."""

import hashlib
import json
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.build.seeds import digest
from pipelines.build.sources.base import SourceItem
from pipelines.build.split import Splits, cut_splits, group_digest
from pipelines.config.building import BuildConfig
from pipelines.pictures.remote import Remote, state_of
from pipelines.storage.ahead import ahead
from pipelines.storage.filesystem import is_remote, open_filesystem
from pipelines.storage.parquet import parquet_bytes, parquet_file
from pipelines.store.writer import atomic_write
from unigeoseg.errors import UserError

#: Beside the store while it is being built.
FOLDER = "_build"
#: Blocks whose items stand in one file.
_BLOCKS_A_FILE = 256
#: Files of the listing that are read at a time.
_FILES_AT_ONCE = 4
#: A block is closed when its files reach this size, however few they are: a scene may be gigabytes.
_BLOCK_BYTES = 256 * 1024 * 1024
_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("scene", pa.string()),
        ("group", pa.string()),
        ("split", pa.string()),
        ("detail", pa.string()),
    ]
)


@dataclass(frozen=True)
class Manifest:
    """What was listed.

    Attributes:
        images: number of images.
        sizes: number of images of each block.
        names: hash of all keys in order.
        splits: which split a group is in.
        own: number of images by the source's own split, of those that keep it.
    """

    images: int
    sizes: list[int]
    names: str
    splits: Splits
    own: Mapping[str, int]


class Listing:
    """Lists a source into a temporary folder, from where :meth:`publish` moves it beside the store.

    Args:
        source: name, for messages.
        items: the source's images.
        config: block size, seed, split shares.

    Raises:
        UserError: two images have the same key, or the source's folder is wrong.
    """

    def __init__(self, source: str, items: Iterable[SourceItem], config: BuildConfig) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="unigeoseg-items-")
        self._files = 0
        keys, groups = array("Q"), array("Q")
        own: Counter[str] = Counter()
        names = hashlib.sha256()
        sizes: list[int] = []
        writer: pq.ParquetWriter | None = None
        for block in _blocks(items, config.block_images):
            if writer is None:
                writer = pq.ParquetWriter(Path(self._folder.name) / _file(self._files), _SCHEMA)
                self._files += 1
            writer.write_table(_table(block))
            for item in block:
                keys.append(digest(item.key))
                groups.append(group_digest(config.seed, item.group))
                names.update(f"{item.key}\n".encode())
                if config.split.own and item.split is not None:
                    own[item.split] += 1
            sizes.append(len(block))
            if len(sizes) % _BLOCKS_A_FILE == 0:
                writer.close()
                writer = None
        if writer is not None:
            writer.close()
        self._check_keys(source, np.frombuffer(keys, np.uint64))
        splits = cut_splits(np.frombuffer(groups, np.uint64), config.split, config.seed)
        self.manifest = Manifest(len(keys), sizes, names.hexdigest(), splits, dict(sorted(own.items())))

    def publish(self, store: str) -> None:
        """Writes the listing beside the store.

        Raises:
            OSError: no permission, no space.
        """
        filesystem, root = open_filesystem(store)
        for number in range(self._files):
            data = (Path(self._folder.name) / _file(number)).read_bytes()
            with atomic_write(filesystem, f"{root}/{FOLDER}/{_file(number)}", is_remote(store)) as handle:
                handle.write(data)

    def close(self) -> None:
        """Removes the temporary folder."""
        self._folder.cleanup()

    def splits_of_images(self) -> Iterator[str]:
        """The split of each image, in order."""
        for number in range(self._files):
            for item in _items(pq.read_table(Path(self._folder.name) / _file(number))):
                yield self.manifest.splits.of(item.group, item.split)

    def spread(self, number: int) -> list[SourceItem]:
        """So many images (or all, if there are fewer), evenly spaced over the source."""
        number = min(number, self.manifest.images)
        wanted = [n * self.manifest.images // number for n in range(number)]
        ends = np.cumsum(self.manifest.sizes)
        found: list[SourceItem] = []
        for place in wanted:
            block = int(np.searchsorted(ends, place, side="right"))
            file = pq.ParquetFile(Path(self._folder.name) / _file(block // _BLOCKS_A_FILE))
            table = file.read_row_group(block % _BLOCKS_A_FILE)
            row = place - int(ends[block]) + self.manifest.sizes[block]
            found += _items(table.slice(row, 1))
        return found

    def _check_keys(self, source: str, keys: np.ndarray) -> None:
        if len(np.unique(keys)) == len(keys):
            return
        seen: set[str] = set()
        for number in range(self._files):
            for item in _items(pq.read_table(Path(self._folder.name) / _file(number))):
                if item.key in seen:
                    raise UserError(
                        f"source {source}: two images have the same key {item.key!r}, one of them "
                        f"{item.scene}; rename it"
                    )
                seen.add(item.key)


def _file(number: int) -> str:
    return f"items-{number:05d}.parquet"


def _blocks(items: Iterable[SourceItem], most: int) -> Iterator[list[SourceItem]]:
    block: list[SourceItem] = []
    size, shared = 0, ""  # a label file of many images counts once, and a shapefile's other parts
    for item in items:
        label = str(item.detail.get("label", ""))
        known = {shared, *(item.detail.get("files", ()) if label and label == shared else ())}
        here = sum(Path(f).stat().st_size for f in _files_of(item)[0] if f not in known)
        states = item.detail.get("states") or {}
        here += sum(s[0] for name, s in states.items() if s and (name != "label" or label != shared))
        if block and (len(block) == most or size + here > _BLOCK_BYTES):
            yield block
            block, size = [], 0
        block.append(item)
        size, shared = size + here, label
    if block:
        yield block


def _files_of(item: SourceItem) -> tuple[list[str], list[str]]:
    """The files that an item's detail names: those on disk, and those elsewhere of which no listing told."""
    named = [value for _, value in sorted(item.detail.items()) if isinstance(value, str) and "/" in value]
    named += item.detail.get("files", ())
    elsewhere = [name for name in named if is_remote(name) and "states" not in item.detail]
    return [name for name in named if not is_remote(name) and Path(name).is_file()], elsewhere


def _table(block: list[SourceItem]) -> pa.Table:
    rows = [
        {
            "key": item.key,
            "scene": item.scene,
            "group": item.group,
            "split": item.split,
            "detail": json.dumps(dict(item.detail), sort_keys=True),
        }
        for item in block
    ]
    return pa.Table.from_pylist(rows, schema=_SCHEMA)


def _items(table: pa.Table) -> Iterator[SourceItem]:
    for row in table.to_pylist():
        yield SourceItem(row["key"], row["scene"], row["group"], json.loads(row["detail"]), row["split"])


def read_block(store: str, number: int) -> list[SourceItem]:
    """The images of a block; of the file that it stands in no more is read than its rows."""
    filesystem, root = open_filesystem(store)
    path = f"{root}/{FOLDER}/{_file(number // _BLOCKS_A_FILE)}"
    # Read ahead, an object store's file would give megabytes at each of the few places that are wanted; these
    # Arrow asks for together (on its threads: no process ends just after this).
    with parquet_file(filesystem, path, cache="none", pre_buffer=is_remote(store)) as file:
        return list(_items(file.read_row_group(number % _BLOCKS_A_FILE, use_threads=False)))


def read_stamps(store: str, numbers: Sequence[int]) -> dict[int, str]:
    """:func:`stamp` of the images of blocks, each file of the listing read once."""
    filesystem, root = open_filesystem(store)
    files: dict[int, list[int]] = {}
    for number in numbers:
        files.setdefault(number // _BLOCKS_A_FILE, []).append(number)

    def stamps(place: tuple[int, list[int]]) -> list[tuple[int, str]]:
        data = filesystem.cat_file(f"{root}/{FOLDER}/{_file(place[0])}")
        file = pq.ParquetFile(parquet_bytes(data))
        groups = ((n, file.read_row_group(n % _BLOCKS_A_FILE)) for n in place[1])
        return [(n, stamp(list(_items(group)))) for n, group in groups]

    return {n: text for found in ahead(stamps, files.items(), _FILES_AT_ONCE) for n, text in found}


def stamp(items: list[SourceItem]) -> str:
    """What a block's images are now, to tell when one was changed.

    That are their names, with size and time of files on disk. Of a file elsewhere it is what the listing told
    (an ETag, say), which the item brings; where that told nothing, as of a web server, each is asked for.
    """
    facts: list[Any] = []
    asked: dict[str, None] = {}
    for item in items:
        facts += [item.key, item.scene, item.group, item.split, sorted(item.detail.items())]
        here, elsewhere = _files_of(item)
        facts += [(file, *state_of(Path(file))) for file in here]
        asked |= dict.fromkeys(elsewhere)
    facts += zip(asked, ahead(_told, asked), strict=True)
    return hashlib.sha256(repr(facts).encode("utf-8", "surrogateescape")).hexdigest()


def _told(file: str) -> tuple[int, str] | None:
    """The state of a file elsewhere; ``None`` where it cannot be had, which reading it tells."""
    try:
        return Remote(file).state()
    except (OSError, UserError):
        return None
