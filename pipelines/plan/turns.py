"""Whose turn it is in a stream that several streams take turns in, by shares that do not change."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

#: Turns after which the order repeats; a share is a multiple of 1 / PERIOD.
PERIOD: Final = 4096


class Turns:
    """An endless order of turns, in which each stream's turns lie evenly.

    Every prefix gives a stream its share to within (n + 1) / 2 turns, n being the number of streams.

    Args:
        weights: of each stream, on any scale; 0: it never has a turn.

    Attributes:
        counts: turns of each stream in a period, at least 1 where there is a weight.
    """

    def __init__(self, weights: Sequence[Fraction]) -> None:
        total = sum(weights)
        scaled = [w * PERIOD / total for w in weights]
        counts = [max(1, int(s)) if s else 0 for s in scaled]
        order = sorted((i for i, s in enumerate(scaled) if s), key=lambda i: (counts[i] - scaled[i], i))
        for i in order[: max(0, PERIOD - sum(counts))]:  # what rounding left, by largest remainder
            counts[i] += 1
        while sum(counts) > PERIOD:  # shares too small for a turn have one all the same
            counts[counts.index(max(counts))] -= 1
        self.counts = tuple(counts)
        who = np.repeat(np.arange(len(counts)), counts)
        rank = np.concatenate([np.arange(n) for n in counts])
        # The j-th of n turns belongs at (2 j + 1) / 2 n of the period; compared in integers.
        due = ((2 * rank + 1) << 40) // np.asarray(counts, np.int64)[who]
        places = np.lexsort((who, due))
        self._who, self._rank = who[places], rank[places]

    def at(self, ordinals: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """For each turn the number of the stream, and how many turns that stream had before."""
        period, place = np.divmod(ordinals, PERIOD)
        who = self._who[place]
        return who, period * np.asarray(self.counts, np.int64)[who] + self._rank[place]
