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
_PART: Final = 2048
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
    hashes = np.empty(size, np.uint64)
    _mix(np.arange(1, size + 1, dtype=np.uint64), np.uint64(key), hashes, np.empty_like(hashes))
    return np.argsort(hashes, kind="stable")


def _feistel(values: NDArray[np.uint64], bits: int, keys: list[np.uint64]) -> NDArray[np.uint64]:
    low_bits = bits // 2
    low_mask, high_mask = np.uint64((1 << low_bits) - 1), np.uint64((1 << (bits - low_bits)) - 1)
    out = np.empty_like(values)
    # In parts that stay in the processor's first cache.
    for begin in range(0, len(values), _PART):
        low, high = (
            values[begin : begin + _PART] & low_mask,
            values[begin : begin + _PART] >> np.uint64(low_bits),
        )
        mixed, scratch = np.empty_like(low), np.empty_like(low)
        for i, key in enumerate(keys):
            changed, other, mask = (high, low, high_mask) if i % 2 else (low, high, low_mask)
            _mix(other, key, mixed, scratch)
            mixed &= mask
            changed ^= mixed
        np.left_shift(high, np.uint64(low_bits), out=high)
        np.bitwise_or(high, low, out=out[begin : begin + _PART])
    return out


def _mix(
    values: NDArray[np.uint64], key: np.uint64, mixed: NDArray[np.uint64], scratch: NDArray[np.uint64]
) -> None:
    """The finaliser of SplitMix64 (Steele et al. 2014), keyed, into ``mixed``."""
    np.bitwise_xor(values, key, out=mixed)
    for shift, factor in ((30, _MIX_1), (27, _MIX_2)):
        np.right_shift(mixed, np.uint64(shift), out=scratch)
        mixed ^= scratch
        mixed *= factor
    np.right_shift(mixed, np.uint64(31), out=scratch)
    mixed ^= scratch
