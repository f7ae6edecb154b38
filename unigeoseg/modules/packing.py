"""Each token once through the language model: no padding, and what an image's prompts share only one time.

The instructions of an image begin alike: the template's first words, the image tokens, the template again.
With causal attention the states of such a common beginning are the same in every sequence, so they are
computed once. All layers but attention then work on the T distinct tokens in one row; attention alone sees
whole sequences, by a gather before it and one after it, so it is the library's own causal kernel as ever
(:mod:`unigeoseg.modules.packed_attention`, which needs ``transformers``; data are read without it).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Packing:
    """Where the tokens of a padded batch ``[B, L]`` are in a row of T.

    Attributes:
        places: int64 ``[B, L]``, in the row; padding points at some token.
        first: int64 ``[T]``, of each token of the row, in the flattened batch.
    """

    places: Tensor
    first: Tensor

    def pack(self, padded: Tensor) -> Tensor:
        """``[B, L, d]`` to ``[1, T, d]``."""
        return padded.flatten(0, 1).index_select(0, self.first)[None]

    def unpack(self, row: Tensor) -> Tensor:
        """``[1, T, ...]`` to ``[B, L, ...]``."""
        return row[0].index_select(0, self.places.flatten()).unflatten(0, self.places.shape)

    @property
    def positions(self) -> Tensor:
        """Of the tokens in their sequences, int64 ``[1, T]``."""
        return (self.first % self.places.shape[1])[None]


def packed_places(
    ids: NDArray[Any],
    lengths: Sequence[int],
    shared: Sequence[int],
    images: Sequence[int],
    multiple: int = 1,
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """``places`` and ``first`` of a :class:`Packing`, and how many tokens the row has that count.

    Args:
        ids: ``[B, L]``, padded on the right.
        lengths: of the sequences.
        shared: how many leading positions of each could be the same as another's: what follows depends on
            more than the ids (the enhanced instruction).
        images: of each sequence; only sequences of one image, which follow each other, share anything.
        multiple: the row ends with repetitions of its first token, which nothing reads, up to a multiple of
            this.
    """
    places = np.zeros(ids.shape, np.int64)
    width, total = ids.shape[1], 0
    first: list[NDArray[np.int64]] = []
    begin = 0
    while begin < len(images):
        end = begin + 1
        while end < len(images) and images[end] == images[begin]:
            end += 1
        limit = min(shared[begin:end])
        differs = (ids[begin:end, :limit] != ids[begin, :limit]).any(0)
        common = int(differs.argmax()) if differs.any() else limit
        for row in range(begin, end):
            own = 0 if row == begin else common
            places[row, :own] = places[begin, :own]
            count = lengths[row] - own
            places[row, own : lengths[row]] = np.arange(total, total + count)
            first.append(np.arange(own, lengths[row]) + row * width)
            total += count
        begin = end
    first.append(np.zeros(-total % multiple, np.int64))
    return places, np.concatenate(first), total
