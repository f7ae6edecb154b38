"""Byte ranges of files, many at once: from a folder, from S3, from whatever else fsspec reaches."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from fsspec.implementations.local import LocalFileSystem

from pipelines.storage.filesystem import open_filesystem

#: Reads ranges of paths, each from its start to before its end. What went wrong with one stands in its place:
#: one of :func:`~pipelines.storage.filesystem.storage_errors`. Fewer bytes than asked for are no error here.
Ranges = Callable[[list[str], list[int], list[int]], Sequence[bytes | BaseException]]


def open_ranges(place: str, at_once: int) -> tuple[Ranges, str]:
    """A reader of what lies in ``place``, and the path of that inside its filesystem.

    A request is sent once: whoever asks repeats it, on a clock of his own.

    Args:
        place: folder or ``s3://`` prefix.
        at_once: most requests under way at a time.
    """
    filesystem, root = open_filesystem(place, attempts=1)
    if isinstance(filesystem, LocalFileSystem):
        return _from_files, root
    slow = partial(filesystem.cat_ranges, batch_size=at_once, on_error="return")
    if "s3" in filesystem.protocol:
        from pipelines.storage.s3_ranges import S3Ranges  # a third of a second, for who has such a store

        return S3Ranges(filesystem, slow, root, at_once), root
    return slow, root


def _from_files(paths: list[str], starts: list[int], ends: list[int]) -> list[bytes | BaseException]:
    """Local files without fsspec, whose own way takes several times as long."""
    return [_from_file(*place) for place in zip(paths, starts, ends, strict=True)]


def _from_file(path: str, start: int, end: int) -> bytes | OSError:
    try:
        with Path(path).open("rb", buffering=0) as file:
            return os.pread(file.fileno(), end - start, start)
    except OSError as error:
        return error
