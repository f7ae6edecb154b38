"""The rows of a large index as a file of this machine that all of its processes map, not each a copy.

A node runs several training workers and data actors, and each needs to look up rows. Parquet cannot be
mapped; Arrow's file format can, and its pages are shared. The file lies in the folder for temporary files, or
in ``UNIGEOSEG_CACHE``; it is named after the index it was made from, so another index makes another file.
"""

import errno
import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from filelock import FileLock
from fsspec import AbstractFileSystem
from numpy.typing import NDArray

from pipelines.storage.parquet import is_on_disk, parquet_file

log = logging.getLogger(__name__)
#: Indices of fewer bytes are read into memory: a copy of them costs next to nothing.
MAPPED_FROM: Final = 4 << 20
CACHE: Final = "UNIGEOSEG_CACHE"
_VERSION: Final = 1
_ROWS: Final = 1 << 18
_READ_ROWS: Final = 1 << 16
_KEEP_SECONDS: Final = 7 * 24 * 3600
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


def mapped_split(fs: AbstractFileSystem, path: str, split: str | None) -> pa.Table | None:
    """The rows of ``split``, mapped; ``None`` where the index is small or this machine has no place for it.

    Args:
        fs: filesystem of the store.
        path: of the Parquet file on it.
        split: name of the split; ``None``: all of them, in the order of the file.

    Raises:
        ArrowInvalid: the Parquet file is damaged.
        OSError: and what else storage raises: it cannot be read.
    """
    if int(fs.size(path)) < MAPPED_FROM:
        return None
    name = hashlib.sha256(f"{_VERSION} {path} {fs.ukey(path)} {split}".encode()).hexdigest()[:32]
    folder = _folder()
    if folder is None:
        return None
    file = folder / f"{name}.arrow"
    # One process makes it; the others of this machine wait, which is quicker than making it too.
    with FileLock(folder / f"{name}.lock"):
        if not file.exists():
            with parquet_file(fs, path) as source:
                if not _write(source, split, file, is_on_disk(fs)):
                    return None
            _forget_old(folder)
            pa.default_memory_pool().release_unused()
        os.utime(file)
    with pa.memory_map(str(file)) as memory:
        return pa.ipc.open_file(memory).read_all()


def _folder() -> Path | None:
    """A folder of this user alone."""
    folder = Path(os.environ.get(CACHE) or tempfile.gettempdir()) / f"unigeoseg-index-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        own = folder.stat().st_uid == os.getuid()
    except OSError as error:
        log.warning("no folder for a mapped index (%s): each process keeps a copy in memory", error)
        return None
    if not own:
        log.warning("%s is another user's: each process keeps a copy of the index in memory", folder)
    return folder if own else None


def _write(source: pq.ParquetFile, split: str | None, file: Path, threads: bool) -> bool:
    """Writes the split's rows, whole or not at all; whether that was possible."""
    partial = file.with_suffix(f".{os.getpid()}")
    if "split" not in source.schema_arrow.names:
        return False
    try:
        with pa.OSFile(str(partial), "wb") as out, pa.ipc.new_file(out, source.schema_arrow) as writer:
            for part in _large(_chosen(source, split, threads)):
                writer.write_table(part, max_chunksize=_ROWS)
        partial.replace(file)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        log.warning("%s: %s; each process keeps a copy of the index in memory", file.parent, error)
        return False
    finally:
        partial.unlink(missing_ok=True)
    return True


def _chosen(source: pq.ParquetFile, split: str | None, threads: bool) -> Iterator[pa.Table]:
    for batch in source.iter_batches(batch_size=_READ_ROWS, use_threads=threads):
        table = pa.Table.from_batches([batch])
        yield table if split is None else table.filter(pc.field("split") == split)


def _large(parts: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in few pieces: looking up a row costs by the piece."""
    waiting: list[pa.Table] = []
    count = 0
    for part in parts:
        waiting.append(part)
        count += len(part)
        if count + _READ_ROWS > _ROWS:
            yield pa.concat_tables(waiting).combine_chunks()
            waiting, count = [], 0
    if count:
        yield pa.concat_tables(waiting).combine_chunks()


def _forget_old(folder: Path) -> None:
    """Removes what no process opened for long; one that has it mapped keeps it."""
    for file in folder.glob("*.arrow"):
        try:
            if time.time() - file.stat().st_mtime > _KEEP_SECONDS:
                file.unlink()
        except OSError:
            continue


class Rows:
    """Rows of a table by number. ``Table.take`` would join all pieces of a text column first, at each call.

    Args:
        table: in one piece or several.
    """

    def __init__(self, table: pa.Table) -> None:
        self._pieces, self._schema = table.to_batches(), table.schema
        self._starts = np.cumsum([0, *map(len, self._pieces)])[:-1]

    def take(self, numbers: Sequence[int] | NDArray[np.int64]) -> pa.Table:
        """These rows, in the order asked for."""
        wanted = np.asarray(numbers, np.int64)
        piece_of = np.searchsorted(self._starts, wanted, side="right") - 1
        order = np.argsort(piece_of, kind="stable")
        parts = []
        for piece in np.unique(piece_of).tolist():
            places = wanted[order[piece_of[order] == piece]] - self._starts[piece]
            parts.append(self._pieces[piece].take(pa.array(places)))
        if len(parts) == 1:
            return pa.Table.from_batches(parts)
        back = np.empty(len(order), np.int64)
        back[order] = np.arange(len(order))
        return pa.Table.from_batches(parts, self._schema).combine_chunks().take(pa.array(back))
