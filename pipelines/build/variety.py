"""How varied the instructions of a store are: distinct-2 of each task (Li et al., arXiv 1510.03055)."""

import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

from pipelines.build.seeds import digest

#: distinct-2 falls with the number of texts, so it is taken of no more than this many a task. They are chosen
#: by the hash of their ids: the same ones in whatever order and in however many pieces they come.
MOST = 2000

#: Of each task, hash of the id and instruction, with the smallest hashes.
Kept = dict[str, list[tuple[int, str]]]


class Variety:
    """Collects instructions; memory holds at most :data:`MOST` a task."""

    def __init__(self) -> None:
        self._heaps: dict[str, list[tuple[int, str]]] = defaultdict(list)

    def add(self, samples: Iterable[Mapping[str, Any]]) -> None:
        """Samples of an image, as they stand in the store's JSON."""
        for sample in samples:
            self._add(sample["task"], digest(sample["sample_id"]), sample["instruction"])

    def merge(self, kept: Kept) -> None:
        """Adds what :meth:`kept` gave elsewhere."""
        for task, texts in kept.items():
            for number, text in texts:
                self._add(task, number, text)

    def kept(self) -> Kept:
        """What was kept, for :meth:`merge`."""
        return {task: [(-number, text) for number, text in heap] for task, heap in self._heaps.items()}

    def result(self) -> dict[str, dict[str, float]]:
        """``{task: {"distinct_2", "instructions"}}``.

        That is the share of different ones among all pairs of neighbouring words, and of how many
        instructions.
        """
        found = {}
        for task, heap in sorted(self._heaps.items()):
            pairs = [pair for _, text in heap for pair in pairwise(_words(text))]
            share = round(len(set(pairs)) / max(len(pairs), 1), 4)
            found[task] = {"distinct_2": share, "instructions": len(heap)}
        return found

    def _add(self, task: str, number: int, text: str) -> None:
        heap = self._heaps[task]  # of negative numbers: the largest comes off first
        (heapq.heappush if len(heap) < MOST else heapq.heappushpop)(heap, (-number, text))


def _words(text: str) -> list[str]:
    return [word for part in text.lower().split() if (word := part.strip(".,;:?!"))]
