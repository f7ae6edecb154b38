"""Permutations that are computed, not stored: place -> item, from a key, in integer arithmetic alone.

NumPy does not promise that its generators' streams stay the same between versions, and a stored permutation
of 10^9 samples takes 8 GB. A Feistel network over the smallest sufficient number of bits, walked until it
falls inside the range, needs no memory and starts anywhere at the same cost.
"""

import hashlib
import itertools
from typing import Final

import numpy as np
from numpy.typing import NDArray

_ROUNDS: Final = 8
# Below this a sorted table is cheaper than walking, and mixes better than a few bits can.
_TABLE: Final = 1024
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def derive_key(*parts: int | str) -> int:
    """A 64-bit key from its parts; the same on every platform."""
    text = "/".join(str(p) for p in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def permute(places: NDArray[np.int64], size: int, key: int) -> NDArray[np.int64]:
    """Items at ``places`` of the permutation of ``range(size)`` that belongs to ``key``."""
    if size <= _TABLE:
        return _table(size, key)[places]
    bits = (size - 1).bit_length()
    keys = [np.uint64(derive_key(key, i)) for i in range(_ROUNDS)]
    values = _feistel(places.astype(np.uint64), bits, keys)
    outside = np.flatnonzero(values >= np.uint64(size))
    while len(outside):
        moved = _feistel(values[outside], bits, keys)
        values[outside] = moved
        outside = outside[moved >= np.uint64(size)]
    return values.astype(np.int64)


def task_stream(ordinals: NDArray[np.int64], size: int, seed: int, task: str) -> NDArray[np.int64]:
    """Items of a task's endless stream: a fresh permutation of ``range(size)`` for each pass.

    Args:
        ordinals: places in the stream, ascending; int64.
        size: items of the task.
        seed: of the plan.
        task: its name.
    """
    out = np.empty(len(ordinals), np.int64)
    passes = ordinals // size
    bounds = np.flatnonzero(np.diff(passes, prepend=-1, append=-1))
    for begin, end in itertools.pairwise(bounds.tolist()):
        number = int(passes[begin])
        places = ordinals[begin:end] - number * size
        out[begin:end] = permute(places, size, derive_key(seed, task, number))
    return out


def _table(size: int, key: int) -> NDArray[np.int64]:
    hashes = _mix(np.arange(size, dtype=np.uint64) + np.uint64(1), np.uint64(key))
    return np.argsort(hashes, kind="stable")


def _feistel(values: NDArray[np.uint64], bits: int, keys: list[np.uint64]) -> NDArray[np.uint64]:
    low_bits = bits // 2
    low_mask, high_mask = np.uint64((1 << low_bits) - 1), np.uint64((1 << (bits - low_bits)) - 1)
    low, high = values & low_mask, values >> np.uint64(low_bits)
    for i, key in enumerate(keys):
        if i % 2:
            high = high ^ (_mix(low, key) & high_mask)
        else:
            low = low ^ (_mix(high, key) & low_mask)
    return (high << np.uint64(low_bits)) | low


def _mix(values: NDArray[np.uint64], key: np.uint64) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele et al. 2014), keyed."""
    mixed = values ^ key
    mixed ^= mixed >> np.uint64(30)
    mixed *= _MIX_1
    mixed ^= mixed >> np.uint64(27)
    mixed *= _MIX_2
    return mixed ^ (mixed >> np.uint64(31))
