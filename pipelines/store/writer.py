"""Writes a GeoSeg store: tar shards with byte offsets, the index, and last of all ``dataset.json``.

Shards depend on their input alone: fixed owner and time in each tar header, sorted JSON keys, no clock.
A file appears under its name only when it is complete (a rename in a folder, the end of an upload on S3).
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem
from pycocotools import mask as coco

from pipelines.storage import is_remote, open_filesystem
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
    with filesystem.open(partial, "wb") as handle:
        yield handle
    filesystem.mv(partial, path)


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


@dataclass
class _OpenShard:
    path: str
    context: Any
    handle: IO[bytes]
    checksum: Any
    bytes: int = 0
    images: int = 0
    samples: int = 0


class StoreWriter:
    """Writes shards and index of one store; images are added in the order in which they shall stand.

    Args:
        store: folder or ``s3://`` prefix.
        shard_bytes: a shard that has reached this size is closed.
    """

    def __init__(self, store: str, shard_bytes: int) -> None:
        self._fs, self._root = open_filesystem(store)
        self._remote, self._limit = is_remote(store), shard_bytes
        self._open: dict[str, _OpenShard] = {}
        self._counts: dict[str, int] = {}
        self._shards: list[dict[str, Any]] = []
        self._rows: list[dict[str, Any]] = []
        self._tables: list[pa.Table] = []

    def add(self, document: Mapping[str, Any], image: bytes) -> None:
        """Appends an image with its JSON document; ``image.file`` there names the image member."""
        shard = self._shard(document["split"])
        text = json.dumps(document, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        block = tar_member(document["image"]["file"], image)
        block += tar_member(f"{document['key']}.json", text.encode("utf-8"))
        place = {"shard": shard.path, "offset": shard.bytes, "nbytes": len(block)}
        self._append(shard, block)
        shard.images += 1
        shard.samples += len(document["samples"])
        shared = {name: document[name] for name in _IMAGE_COLUMNS} | place
        shared |= {"height": document["image"]["height"], "width": document["image"]["width"]}
        for n, sample in enumerate(document["samples"]):
            own = {name: sample[name] for name in _SAMPLE_COLUMNS}
            rle = sample["mask"] | {"counts": sample["mask"]["counts"].encode("ascii")}
            measured = {"mask_area": int(coco.area(rle)), "words": len(sample["instruction"].split())}
            self._rows.append(shared | own | measured | {"n": n})
        if len(self._rows) >= _ROWS_AT_ONCE:
            self._flush_rows()
        if shard.bytes >= self._limit:
            self._close(document["split"])

    def finish(self) -> tuple[pa.Table, list[dict[str, Any]]]:
        """Closes the shards and writes the index; gives the index and the shard list of the card."""
        for split in list(self._open):
            self._close(split)
        self._flush_rows()
        table = pa.concat_tables(self._tables) if self._tables else INDEX_SCHEMA.empty_table()
        table = table.sort_by([("shard", "ascending"), ("offset", "ascending"), ("n", "ascending")])
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        with atomic_write(self._fs, f"{self._root}/index.parquet", self._remote) as handle:
            handle.write(buffer.getvalue())
        return table, sorted(self._shards, key=lambda s: str(s["path"]))

    def write_card(self, card: Mapping[str, Any]) -> None:
        """Writes ``dataset.json``, which makes the store a finished one."""
        text = json.dumps(card, indent=1, sort_keys=True, ensure_ascii=False)
        with atomic_write(self._fs, f"{self._root}/dataset.json", self._remote) as handle:
            handle.write(text.encode("utf-8"))

    def abort(self) -> None:
        """Gives up open shards; nothing of them appears under its name."""
        for shard in self._open.values():
            error = RuntimeError("store writing was given up")
            try:
                shard.context.__exit__(type(error), error, None)
            except RuntimeError:
                continue
        self._open.clear()

    def _shard(self, split: str) -> _OpenShard:
        if split not in self._open:
            number = self._counts.get(split, 0)
            self._counts[split] = number + 1
            path = f"shards/{split}-{number:05d}.tar"
            context = atomic_write(self._fs, f"{self._root}/{path}", self._remote)
            self._open[split] = _OpenShard(path, context, context.__enter__(), hashlib.sha256())
        return self._open[split]

    def _append(self, shard: _OpenShard, block: bytes) -> None:
        shard.handle.write(block)
        shard.checksum.update(block)
        shard.bytes += len(block)

    def _close(self, split: str) -> None:
        shard = self._open.pop(split)
        self._append(shard, b"\0" * (2 * tarfile.BLOCKSIZE))
        shard.context.__exit__(None, None, None)
        self._shards.append(
            {
                "path": shard.path,
                "split": split,
                "bytes": shard.bytes,
                "sha256": shard.checksum.hexdigest(),
                "images": shard.images,
                "samples": shard.samples,
            }
        )

    def _flush_rows(self) -> None:
        if self._rows:
            self._tables.append(pa.Table.from_pylist(self._rows, schema=INDEX_SCHEMA))
            self._rows = []
