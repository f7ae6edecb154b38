"""Meanings that pick out one region: everything the geometry offers, kept only if uniquely true."""

from collections.abc import Iterator
from itertools import combinations
from typing import Literal

import numpy as np

from pipelines.build.instruct.facts import TileFacts
from pipelines.build.instruct.meaning import (
    TRUE,
    AtEdge,
    Coloured,
    Counted,
    InZone,
    Meaning,
    Predicate,
    Ranked,
    Shaped,
    Side,
    Sized,
    Truth,
)
from pipelines.build.instruct.relations import Beside, Between, Nearest, SideOf, Surrounded
from pipelines.build.instruct.words import NUMBERS

#: How often each kind of meaning is taken when all are there.
_WEIGHTS = {
    "zone": 0.37,
    "rank": 0.17,
    "size": 0.10,
    "relation": 0.18,
    "trait": 0.06,
    "edge": 0.02,
    "pair": 0.10,
}
#: How often a meaning that suffices says one thing more, and how often it counts its category.
_MORE, _COUNT = 0.4, 0.3
_SIDES: tuple[Side, ...] = ("left", "right", "top", "bottom")
_ROWS: tuple[Literal["top", "bottom"], ...] = ("top", "bottom")
_COLUMNS: tuple[Literal["left", "right"], ...] = ("left", "right")


def _zones() -> Iterator[InZone]:
    for vertical in _ROWS:
        yield InZone(vertical, "middle")
        yield InZone(vertical, None)
        yield from (InZone(vertical, horizontal) for horizontal in _COLUMNS)
    for horizontal in _COLUMNS:
        yield InZone(None, horizontal)
        yield InZone("middle", horizontal)
    yield InZone("middle", "middle")


def _offered(facts: TileFacts, category: int) -> dict[str, list[Predicate]]:
    """Predicates worth trying for a category, by kind."""
    members = facts.members(category)
    several = len(members) >= 2
    ranks: list[Predicate] = [Ranked(side) for side in _SIDES] if several else []
    if len(members) >= 3:
        ranks += [Ranked(side, 2) for side in _SIDES]
    if len(members) >= 5:
        ranks += [Ranked(side, 3) for side in _SIDES]
    colours = sorted({c for m in members if (c := facts.colours[int(m)]) is not None})
    return {
        "zone": list(_zones()),
        "rank": ranks,
        "size": [Sized("largest"), Sized("smallest")] if several else [],
        "relation": _relations(facts, category, several),
        "trait": [*(Coloured(c) for c in colours), Shaped("elongated"), Shaped("compact")],
        "edge": [AtEdge(side) for side in _SIDES],
    }


def _relations(facts: TileFacts, category: int, several: bool) -> list[Predicate]:
    others = [int(c) for c in np.unique(facts.categories) if c != category]
    sole = [c for c in others if facts.sole(c) is not None]
    found: list[Predicate] = [SideOf(side, anchor) for anchor in sole for side in _SIDES]
    found += [Beside(anchor) for anchor in others]
    found += [Surrounded(anchor) for anchor in others]
    found += [Between(a, b) for a, b in combinations(sole, 2)]
    if several:
        found += [Nearest(anchor, furthest) for anchor in sole for furthest in (False, True)]
    return found


def anchors(predicate: Predicate) -> tuple[int, ...]:
    """Categories that a predicate names."""
    match predicate:
        case SideOf(_, anchor) | Beside(anchor) | Nearest(anchor) | Surrounded(anchor):
            return (anchor,)
        case Between(first, second):
            return first, second
    return ()


def _compares(predicate: Predicate) -> bool:
    return isinstance(predicate, Ranked | Sized | Nearest)


def agree(first: Predicate, second: Predicate) -> bool:
    """Whether two predicates may stand in one phrase and are then read as meant.

    "The second one from the left in the upper half" counts within the half, so what has a higher rank stands
    alone; and one comparison is enough.
    """
    if any(isinstance(p, Ranked) and p.rank > 1 for p in (first, second)):
        return False
    if type(first) is type(second) or (_compares(first) and _compares(second)):
        return False
    named = set(anchors(first)) & set(anchors(second))
    return not named and not _sides(first) & _sides(second)


def _sides(predicate: Predicate) -> set[str]:
    """Sides of the image that a predicate speaks of."""
    match predicate:
        case InZone(vertical, horizontal):
            return {side for side in (vertical, horizontal) if side not in (None, "middle")}
        case Ranked(side) | AtEdge(side):
            return {side}
    return set()


#: Predicates and their truth, a row each and a column for each region of the category.
_Evaluated = tuple[list[Predicate], Truth]


def _rows(truths: list[Truth], columns: int) -> Truth:
    return np.stack(truths) if truths else np.empty((0, columns), np.int8)


class CandidateWriter:
    """Finds meanings for the regions of one tile; predicates are evaluated once a category."""

    def __init__(self, facts: TileFacts) -> None:
        self._facts = facts
        self._known: dict[int, dict[str, _Evaluated]] = {}

    def _evaluated(self, category: int) -> dict[str, _Evaluated]:
        if category not in self._known:
            members = self._facts.members(category)
            self._known[category] = {
                kind: (predicates, _rows([p.truth(self._facts, members) for p in predicates], len(members)))
                for kind, predicates in _offered(self._facts, category).items()
            }
        return self._known[category]

    def unique(self, target: int) -> dict[str, list[Meaning]]:
        """Meanings that pick out region ``target``, by kind; pairs hold where neither part need suffice."""
        category = int(self._facts.categories[target])
        members = self._facts.members(category)
        wanted = np.where(members == target, TRUE, -TRUE)
        found: dict[str, list[Meaning]] = {}
        holding: list[Predicate] = []
        rows: list[Truth] = []
        for kind, (true, truth) in self._true(target).items():
            suffices = (truth == wanted).all(1)
            found[kind] = [Meaning(category, (p,)) for p, alone in zip(true, suffices, strict=True) if alone]
            if kind in ("zone", "relation", "trait"):
                kept = [i for i, p in enumerate(true) if not isinstance(p, Nearest)]
                holding += [true[i] for i in kept]
                rows.append(truth[kept])
        together = np.concatenate(rows)
        first, second = np.triu_indices(len(holding), 1)  # in the order of combinations()
        suffice = (np.minimum(together[first], together[second]) == wanted).all(1)
        found["pair"] = [
            Meaning(category, (holding[i], holding[j]))
            for i, j in zip(first[suffice].tolist(), second[suffice].tolist(), strict=True)
            if agree(holding[i], holding[j])
        ]
        return found

    def _true(self, target: int) -> dict[str, _Evaluated]:
        """What is true of a region, by kind."""
        category = int(self._facts.categories[target])
        place = int(np.searchsorted(self._facts.members(category), target))
        found = {}
        for kind, (predicates, truth) in self._evaluated(category).items():
            true = np.flatnonzero(truth[:, place] == TRUE)
            found[kind] = [predicates[i] for i in true.tolist()], truth[true]
        return found

    def choose(
        self, target: int, rng: np.random.Generator, unsaid: frozenset[int] = frozenset()
    ) -> Meaning | None:
        """One meaning for region ``target``, drawn by kind and then evenly; ``None`` if there is none.

        Args:
            target: place of the region.
            rng: draws.
            unsaid: categories that the phrase must not name.
        """
        found = {
            kind: allowed
            for kind, meanings in self.unique(target).items()
            if (allowed := [m for m in meanings if not any(unsaid & {*anchors(p)} for p in m.predicates)])
        }
        if not found:
            return None
        weights = np.asarray([_WEIGHTS[k] for k in found])
        kind = list(found)[int(rng.choice(len(found), p=weights / weights.sum()))]
        return self.enriched(found[kind][int(rng.integers(len(found[kind])))], target, rng, unsaid)

    def enriched(
        self,
        meaning: Meaning,
        target: int,
        rng: np.random.Generator,
        unsaid: frozenset[int] = frozenset(),
    ) -> Meaning:
        """The meaning, sometimes with one more thing that is true of the region, or with a count."""
        more = [
            p
            for true, _ in self._true(target).values()
            for p in true
            if all(agree(p, q) for q in meaning.predicates)
            and not unsaid & {*anchors(p)}
            and not (isinstance(p, Ranked) and p.rank > 1)
        ]
        predicates = meaning.predicates
        if more and len(predicates) < 2 and rng.random() < _MORE:
            predicates = (*predicates, more[int(rng.integers(len(more)))])
        number = len(self._facts.members(meaning.category))
        ranked = any(isinstance(p, Ranked) and p.rank > 1 for p in predicates)
        count = Counted(number)
        if number in NUMBERS and not ranked and rng.random() < _COUNT:
            members = self._facts.members(meaning.category)
            if (count.truth(self._facts, members) == TRUE).all():
                predicates = (*predicates, count)
        return Meaning(meaning.category, predicates)
