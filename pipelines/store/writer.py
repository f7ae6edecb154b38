"""Writes a GeoSeg store: tar shards with byte offsets, the index, and last of all ``dataset.json``.

Shards depend on their input alone: fixed owner and time in each tar header, sorted JSON keys, no clock.
A file appears under its name only when it is complete (a rename in a folder, the end of an upload on S3).
"""

import hashlib
import json
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem
from pycocotools import mask as coco

from pipelines.storage.filesystem import is_remote, open_filesystem
from unigeoseg.errors import UserError

SCHEMA_VERSION = 1
INDEX_SCHEMA = pa.schema(
    [
        ("sample_id", pa.string()),
        ("key", pa.string()),
        ("n", pa.int32()),
        ("task", pa.string()),
        ("subtask", pa.string()),
        ("source", pa.string()),
        ("category_id", pa.int32()),
        ("category", pa.string()),
        ("scene", pa.string()),
        ("split", pa.string()),
        ("licence", pa.string()),
        ("shard", pa.string()),
        ("offset", pa.int64()),
        ("nbytes", pa.int64()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("mask_area", pa.int64()),
        ("box_area", pa.int64()),  # pixels of the mask's tight box
        ("words", pa.int32()),
    ]
)
_ROWS_AT_ONCE = 65536
_SAMPLE_COLUMNS = ("sample_id", "task", "subtask", "category_id", "category")
_IMAGE_COLUMNS = ("key", "source", "scene", "split", "licence")


@contextmanager
def atomic_write(filesystem: AbstractFileSystem, path: str, remote: bool) -> Iterator[IO[bytes]]:
    """A file that takes its name only when the block ends without an exception."""
    if remote:
        handle = filesystem.open(path, "wb")
        try:
            yield handle
        except BaseException:
            if hasattr(handle, "discard"):
                handle.discard()
            raise
        handle.close()
        return
    partial = f"{path}.partial"
    filesystem.makedirs(path.rpartition("/")[0], exist_ok=True)
    try:
        with filesystem.open(partial, "wb") as handle:
            yield handle
        filesystem.mv(partial, path)
    except BaseException:
        with suppress(OSError):
            filesystem.rm(partial)
        raise


def fitting_name(name: str, most: int) -> str:
    """A name of so many bytes at most: a longer one ends in twelve digits of its hash, and stays unique."""
    data = name.encode("utf-8")
    if len(data) <= most:
        return name
    return f"{data[: most - 13].decode('utf-8', 'ignore')}_{hashlib.sha256(data).hexdigest()[:12]}"


def tar_member(name: str, body: bytes) -> bytes:
    """A tar header and its padded body, the same bytes for the same name and body.

    Raises:
        UserError: the name does not fit a plain tar header.
    """
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime, info.uid, info.gid = len(body), 0o644, 0, 0, 0
    try:
        header = info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict")
    except ValueError as error:
        raise UserError(f"{name!r} is too long for a tar member: use shorter file names") from error
    return header + body + b"\0" * (-len(body) % tarfile.BLOCKSIZE)


class ShardWriter:
    """One tar shard and the index rows of its samples.

    Args:
        store: folder or ``s3://`` prefix.
        path: of the shard in the store, such as ``shards/train-00000.tar``.
        split: of all its images.
    """

    def __init__(self, store: str, path: str, split: str) -> None:
        filesystem, root = open_filesystem(store)
        self.path, self.split = path, split
        self.bytes = self.images = self.samples = 0
        self.rows: list[dict[str, Any]] = []
        self._checksum = hashlib.sha256()
        self._context = atomic_write(filesystem, f"{root}/{path}", is_remote(store))
        self._handle = self._context.__enter__()

    def add(self, document: Mapping[str, Any], image: bytes) -> None:
        """Appends an image with its JSON document; ``image.file`` there names the image member."""
        block = store_block(document, image)
        place = {"shard": self.path, "offset": self.bytes, "nbytes": len(block)}
        self._append(block)
        self.images += 1
        self.samples += len(document["samples"])
        shared = {name: document[name] for name in _IMAGE_COLUMNS} | place
        shared |= {"height": document["image"]["height"], "width": document["image"]["width"]}
        for n, sample in enumerate(document["samples"]):
            own = {name: sample[name] for name in _SAMPLE_COLUMNS}
            rle = sample["mask"] | {"counts": sample["mask"]["counts"].encode("ascii")}
            width, height = coco.toBbox(rle)[2:].tolist()
            measured = {
                "mask_area": int(coco.area(rle)),
                "box_area": round(width * height),
                "words": len(sample["instruction"].split()),
            }
            self.rows.append(shared | own | measured | {"n": n})

    def close(self) -> dict[str, Any]:
        """Ends the tar, which then has its name; gives the shard's entry of the card."""
        self._append(b"\0" * (2 * tarfile.BLOCKSIZE))
        self._context.__exit__(None, None, None)
        return {
            "path": self.path,
            "split": self.split,
            "bytes": self.bytes,
            "sha256": self._checksum.hexdigest(),
            "images": self.images,
            "samples": self.samples,
        }

    def abort(self) -> None:
        """Gives the shard up; nothing of it appears under its name."""
        error = RuntimeError("store writing was given up")
        with suppress(RuntimeError):
            self._context.__exit__(type(error), error, None)

    def _append(self, block: bytes) -> None:
        self._handle.write(block)
        self._checksum.update(block)
        self.bytes += len(block)


def store_block(document: Mapping[str, Any], image: bytes) -> bytes:
    """The two tar members of an image, as they stand in a shard."""
    text = json.dumps(document, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return tar_member(document["image"]["file"], image) + tar_member(
        f"{document['key']}.json", text.encode("utf-8")
    )


def shard_path(split: str, number: int) -> str:
    """Where a shard stands in a store."""
    return f"shards/{split}-{number:05d}.tar"


def write_card(store: str, card: Mapping[str, Any]) -> None:
    """Writes ``dataset.json``, which makes the store a finished one."""
    filesystem, root = open_filesystem(store)
    text = json.dumps(card, indent=1, sort_keys=True, ensure_ascii=False)
    with atomic_write(filesystem, f"{root}/dataset.json", is_remote(store)) as handle:
        handle.write(text.encode("utf-8"))


class IndexWriter:
    """Writes ``index.parquet`` from the rows of shard after shard, in row groups of a fixed size.

    Args:
        store: folder or ``s3://`` prefix.
    """

    def __init__(self, store: str) -> None:
        filesystem, root = open_filesystem(store)
        self._context = atomic_write(filesystem, f"{root}/index.parquet", is_remote(store))
        self._writer = pq.ParquetWriter(self._context.__enter__(), INDEX_SCHEMA, compression="zstd")
        self._waiting: list[pa.Table] = []

    def add(self, rows: pa.Table) -> None:
        """Appends the rows of the next shard, in the order of its members."""
        self._waiting.append(rows)
        if sum(len(table) for table in self._waiting) >= _ROWS_AT_ONCE:
            self._flush(_ROWS_AT_ONCE)

    def close(self) -> None:
        """Ends the file, which then has its name."""
        self._flush(1)
        self._writer.close()
        self._context.__exit__(None, None, None)

    def abort(self) -> None:
        """Gives the index up."""
        with suppress(OSError):
            self._writer.close()
        error = RuntimeError("the index was given up")
        with suppress(RuntimeError):
            self._context.__exit__(type(error), error, None)

    def _flush(self, least: int) -> None:
        rows = pa.concat_tables(self._waiting) if self._waiting else INDEX_SCHEMA.empty_table()
        while len(rows) >= least and len(rows):
            self._writer.write_table(rows.slice(0, _ROWS_AT_ONCE).combine_chunks())
            rows = rows.slice(_ROWS_AT_ONCE)
        self._waiting = [rows] if len(rows) else []
