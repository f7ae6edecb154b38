"""Permutations that are computed, not stored: place -> item, from a key, in integer arithmetic alone.

NumPy does not promise that its generators' streams stay the same between versions, and a stored permutation
of 10^9 samples takes 8 GB. A Feistel network over the smallest sufficient number of bits, walked until it
falls inside the range, needs no memory and starts anywhere at the same cost.

A round sees half of the bits only. Where many places are asked for, its values for all halves are kept in a
table: reading one is several times faster than computing it.
"""

import functools
import hashlib
import itertools
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

_ROUNDS: Final = 8
# Below this a sorted table is cheaper than walking, and mixes better than a few bits can.
_TABLE: Final = 1024
_PART: Final = 2048
# Halves of more bits are computed: their table would not fit into the processor's second cache.
_TABLED_BITS: Final = 15
# Permutations whose tables are kept: that of a task, and of its next pass.
_KEPT: Final = 6
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
    rounds = _rounds(key, bits, len(places))
    values = _feistel(places.astype(np.uint64), bits, rounds)
    outside = np.flatnonzero(values >= np.uint64(size))
    while len(outside):
        moved = _feistel(values[outside], bits, rounds)
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


def mixed(values: NDArray[np.uint64], keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A pseudo-random number for each pair of a value and a key."""
    out = np.empty_like(values)
    _mix(values + np.uint64(1), keys, out, np.empty_like(values))
    return out


@functools.lru_cache(maxsize=64)  # of 8 KB at most
def _table(size: int, key: int) -> NDArray[np.int64]:
    hashes = np.empty(size, np.uint64)
    _mix(np.arange(1, size + 1, dtype=np.uint64), np.uint64(key), hashes, np.empty_like(hashes))
    found = np.argsort(hashes, kind="stable")
    found.flags.writeable = False
    return found


_Halves = NDArray[np.uint64]


class _Computed:
    """A round's function: the half of a value to what the other half is changed by."""

    def __init__(self, key: int, number: int, bits: int) -> None:
        self._key, self._mask = np.uint64(derive_key(key, number)), np.uint64((1 << bits) - 1)

    def __call__(
        self, half: NDArray[np.uint64], out: NDArray[np.uint64], scratch: NDArray[np.uint64]
    ) -> None:
        """Writes the changes for ``half`` into ``out``."""
        _mix(half, self._key, out, scratch)
        out &= self._mask


class _Tabled:
    """The same from a table of all halves of ``half_bits`` bits."""

    def __init__(self, function: _Computed, half_bits: int) -> None:
        self._table = np.empty(1 << half_bits, np.uint64)
        function(np.arange(1 << half_bits, dtype=np.uint64), self._table, np.empty_like(self._table))

    def __call__(self, half: _Halves, out: _Halves, _: _Halves) -> None:
        """Writes the changes for ``half`` into ``out``."""
        # The halves are in range; "clip" spares take() a copy of its own.
        self._table.take(half.view(np.int64), out=out, mode="clip")


_Rounds = Sequence[Callable[[_Halves, _Halves, _Halves], None]]


def _rounds(key: int, bits: int, values: int) -> _Rounds:
    """The rounds of a permutation, in the form that is cheaper for so many values."""
    largest = bits - bits // 2
    if largest <= _TABLED_BITS and values << 1 >= 1 << largest:
        return _tabled(key, bits)
    return _computed(key, bits)


def _computed(key: int, bits: int) -> list[_Computed]:
    # Rounds change the low half first, then the high one, in turns.
    return [_Computed(key, i, bits - bits // 2 if i % 2 else bits // 2) for i in range(_ROUNDS)]


@functools.lru_cache(maxsize=_KEPT)
def _tabled(key: int, bits: int) -> list[_Tabled]:
    return [
        _Tabled(function, bits // 2 if i % 2 else bits - bits // 2)
        for i, function in enumerate(_computed(key, bits))
    ]


def _feistel(values: NDArray[np.uint64], bits: int, rounds: _Rounds) -> NDArray[np.uint64]:
    low_bits = np.uint64(bits // 2)
    low_mask = np.uint64((1 << (bits // 2)) - 1)
    out = np.empty_like(values)
    scratch = np.empty((4, _PART), np.uint64)
    # In parts that stay in the processor's first cache.
    for begin in range(0, len(values), _PART):
        part = values[begin : begin + _PART]
        low, high, change, more = scratch[:, : len(part)]
        np.bitwise_and(part, low_mask, out=low)
        np.right_shift(part, low_bits, out=high)
        for i, function in enumerate(rounds):
            changed, other = (high, low) if i % 2 else (low, high)
            function(other, change, more)
            changed ^= change
        np.left_shift(high, low_bits, out=high)
        np.bitwise_or(high, low, out=out[begin : begin + _PART])
    return out


def _mix(
    values: NDArray[np.uint64],
    key: np.uint64 | NDArray[np.uint64],
    out: NDArray[np.uint64],
    scratch: NDArray[np.uint64],
) -> None:
    """The finaliser of SplitMix64 (Steele et al. 2014), keyed, into ``out``."""
    np.bitwise_xor(values, key, out=out)
    for shift, factor in ((30, _MIX_1), (27, _MIX_2)):
        np.right_shift(out, np.uint64(shift), out=scratch)
        out ^= scratch
        out *= factor
    np.right_shift(out, np.uint64(31), out=scratch)
    out ^= scratch
