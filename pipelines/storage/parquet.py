"""Parquet files, read so that no object of Python is left with Arrow's threads.

These let go of what they read from a moment after the reading has returned. Of a file or a buffer that is
Python's they need the interpreter for that, and where it is just ending the process is aborted instead
(``terminate called without an active exception``, exit 134; github apache/arrow, issues 33975 and 34314).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem


def is_on_disk(fs: AbstractFileSystem) -> bool:
    """Whether Arrow opens a filesystem's files itself, so that its threads may read them."""
    return isinstance(fs, LocalFileSystem)


@contextmanager
def parquet_file(
    fs: AbstractFileSystem, path: str, cache: str = "readahead", **options: Any
) -> Iterator[pq.ParquetFile]:
    """A Parquet file, to be read with ``use_threads=False`` unless :func:`is_on_disk`.

    Args:
        fs: its filesystem.
        path: on it.
        cache: what fsspec holds of a file that is not on disk.
        options: of ``pyarrow.parquet.ParquetFile``.
    """
    if is_on_disk(fs):
        with pa.OSFile(path, "rb") as source, pq.ParquetFile(source, **options) as file:
            yield file
        return
    with fs.open(path, "rb", cache_type=cache) as handle, pq.ParquetFile(handle, **options) as file:
        yield file


def read_parquet(
    fs: AbstractFileSystem,
    path: str,
    columns: Sequence[str] | None = None,
    read_dictionary: Sequence[str] | None = None,
) -> pa.Table:
    """A whole file.

    Args:
        fs: its filesystem.
        path: on it.
        columns: those that are wanted; ``None``: all.
        read_dictionary: columns whose texts are held once each.

    Raises:
        ArrowInvalid: it is damaged.
        OSError: and what else storage raises: it cannot be read.
    """
    named = None if read_dictionary is None else list(read_dictionary)
    with parquet_file(fs, path, read_dictionary=named) as file:
        return file.read(None if columns is None else list(columns), use_threads=is_on_disk(fs))


def parquet_bytes(data: bytes) -> pa.BufferReader:
    """The bytes of a Parquet file as a source that is Arrow's own; they are copied."""
    stream = pa.BufferOutputStream()
    stream.write(data)
    return pa.BufferReader(stream.getvalue())
