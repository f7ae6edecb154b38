"""The steps that need the whole source: the diversity quantile of reasoning, and the cap per category."""

import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipelines.build.seeds import digest
from pipelines.config.building import BuildConfig
from pipelines.labels.stages import StageCounts
from unigeoseg.tasks import ABSENT, REASONING

#: Task, category id, and where there is none (0) the source's own name.
Kind = tuple[str, int, str]
#: Why an absent sample is left out: the source shows its category nowhere.
_NEVER = "absent_never_labelled"
#: A sample's place in the seeded order in which a cap keeps samples.
Rank = tuple[int, str]


@dataclass(frozen=True)
class Balance:
    """Which samples enter the store.

    Attributes:
        seed: of the order in which a cap keeps samples.
        cutoff: reasoning samples of tiles with fewer categories are left out.
        last: the last kept rank of each kind that has more samples than the cap.
        shown: the categories that the source shows somewhere, where absent instructions are written (its
            labels may lack what it never shows, whatever its table says); ``None`` elsewhere.
    """

    seed: int
    cutoff: float = 0.0
    last: Mapping[Kind, Rank] = field(default_factory=dict)
    shown: frozenset[int] | None = None

    def keep(self, tile: Mapping[str, Any], counts: StageCounts | None = None) -> list[dict[str, Any]]:
        """The samples of a tile that stay, in order; stages "diversity" and "balance" are counted."""
        samples: list[dict[str, Any]] = tile["samples"]
        sure = [s for s in samples if self._sure(s)]
        diverse = [s for s in sure if not self._plain(tile, s)]
        kept = [s for s in diverse if self._within(s)]
        if counts is not None:
            asked = sum(s["task"] == REASONING for s in samples)
            never = [s["task"] == REASONING for s in samples if not self._sure(s)]
            left = sum(s["task"] == REASONING for s in diverse)
            reasons = {"low_diversity": asked - left - sum(never), _NEVER: sum(never)}
            counts.add("diversity", asked, left, reasons)
            reasons = {"category_cap": len(diverse) - len(kept), _NEVER: never.count(False)}
            counts.add("balance", len(diverse) + never.count(False), len(kept), reasons)
        return kept

    def _sure(self, sample: Mapping[str, Any]) -> bool:
        return self.shown is None or sample["subtask"] != ABSENT or sample["category_id"] in self.shown

    def _plain(self, tile: Mapping[str, Any], sample: Mapping[str, Any]) -> bool:
        # Ready samples of a benchmark carry 0 categories: the rule is not about them.
        return sample["task"] == REASONING and 0 < tile["categories"] < self.cutoff

    def _within(self, sample: Mapping[str, Any]) -> bool:
        kind = kind_of(sample)
        last = self.last.get(kind) if kind is not None else None
        return last is None or rank(self.seed, sample["sample_id"]) <= last


def kind_of(sample: Mapping[str, Any]) -> Kind | None:
    """What a cap counts a sample as; ``None`` for one without any category, which no cap is about."""
    number = int(sample["category_id"])
    name = "" if number else str(sample.get("category") or "")
    return (sample["task"], number, name) if number or name else None


def rank(seed: int, sample_id: str) -> Rank:
    """A sample's place in the seeded order."""
    return digest(seed, "cap", sample_id), sample_id


def quantile(counted: Mapping[int, int], share: float) -> float:
    """The quantile of counted values, as ``numpy.quantile`` of the values themselves (linear).

    Args:
        counted: how often each value occurs.
        share: 0 to 1.
    """
    total = sum(counted.values())
    if not total:
        return 0.0
    place = share * (total - 1)
    low, high = (_nth(counted, n) for n in (math.floor(place), math.ceil(place)))
    return low + (high - low) * (place - math.floor(place))


def _nth(counted: Mapping[int, int], place: int) -> int:
    passed = 0
    for value in sorted(counted):
        passed += counted[value]
        if place < passed:
            return value
    raise IndexError(place)


def smallest_ranks(tiles: Iterable[Mapping[str, Any]], balance: Balance, cap: int) -> dict[Kind, list[Rank]]:
    """The first ``cap + 1`` ranks of each kind among tiles, ascending."""
    found: dict[Kind, list[Rank]] = defaultdict(list)
    for tile in tiles:
        for sample in balance.keep(tile):
            if (kind := kind_of(sample)) is not None:
                found[kind].append(rank(balance.seed, sample["sample_id"]))
    return {kind: heapq.nsmallest(cap + 1, ranks) for kind, ranks in found.items()}


class Cap:
    """Collects ranks block by block; memory holds ``cap + 1`` of each kind."""

    def __init__(self, cap: int) -> None:
        self._cap = cap
        self._ranks: dict[Kind, list[Rank]] = {}

    def add(self, found: Mapping[Kind, list[Rank]]) -> None:
        """Takes the smallest ranks of a block."""
        for kind, ranks in found.items():
            merged = heapq.merge(self._ranks.get(kind, []), ranks)
            self._ranks[kind] = [one for one, _ in zip(merged, range(self._cap + 1), strict=False)]

    def last(self) -> dict[Kind, Rank]:
        """The last kept rank of each kind that has too many samples."""
        return {k: ranks[self._cap - 1] for k, ranks in self._ranks.items() if len(ranks) > self._cap}


def cutoff_of(diversity: Counter[int], config: BuildConfig) -> float:
    """Fewest categories of a tile that may have reasoning samples."""
    return quantile(diversity, config.instruct.diversity_quantile)
