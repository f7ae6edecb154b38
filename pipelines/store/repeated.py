"""Texts that occur more than once among many columns, without a set of all of them."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

#: Texts that are Python's at a time.
_AT_ONCE = 1 << 16


def repeated(columns: Sequence[pa.ChunkedArray]) -> list[str]:
    """Every occurrence of a text but its first, in order; memory holds eight bytes a text.

    Args:
        columns: of text, read twice when anything repeats.
    """
    hashes = [_hashes(chunk) for chunk in _chunks(columns)]
    if not hashes:
        return []
    ordered = np.sort(np.concatenate(hashes))
    twice = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    if not len(twice):
        return []
    seen: set[str] = set()
    later: list[str] = []
    for chunk, own in zip(_chunks(columns), hashes, strict=True):
        for name in chunk.filter(pa.array(np.isin(own, twice))).to_pylist():
            if name in seen:  # two texts may have one hash
                later.append(name)
            seen.add(name)
    return later


def _chunks(columns: Iterable[pa.ChunkedArray]) -> Iterator[pa.Array]:
    for column in columns:
        for chunk in column.chunks:
            yield from (chunk[at : at + _AT_ONCE] for at in range(0, len(chunk), _AT_ONCE))


def _hashes(chunk: pa.Array) -> NDArray[np.int64]:
    """Python's own hash of each text, int64 ``[N]``; the same within a process."""
    return np.fromiter(map(hash, chunk.to_pylist()), np.int64, len(chunk))
