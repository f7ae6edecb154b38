"""Meanings that pick out one region: everything the geometry offers, kept only if uniquely true."""

from collections.abc import Iterator
from itertools import combinations
from typing import Literal

import numpy as np

from pipelines.build.instruct.facts import TileFacts
from pipelines.build.instruct.meaning import (
    TRUE,
    Beside,
    Coloured,
    InZone,
    Meaning,
    Nearest,
    Predicate,
    Ranked,
    Side,
    SideOf,
    Sized,
    Truth,
)

#: How often each kind of meaning is taken when all are there.
_WEIGHTS = {"zone": 0.40, "rank": 0.17, "size": 0.10, "relation": 0.18, "colour": 0.05, "pair": 0.10}
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
    others = [int(c) for c in np.unique(facts.categories) if c != category]
    sole = [c for c in others if facts.sole(c) is not None]
    several = len(members) >= 2
    ranks: list[Predicate] = [Ranked(side) for side in _SIDES] if several else []
    if len(members) >= 3:
        ranks += [Ranked("left", 2), Ranked("top", 2)]
    relations: list[Predicate] = [SideOf(side, anchor) for anchor in sole for side in _SIDES]
    relations += [Beside(anchor) for anchor in others]
    if several:
        relations += [Nearest(anchor, furthest) for anchor in sole for furthest in (False, True)]
    colours = sorted({c for m in members if (c := facts.colours[int(m)]) is not None})
    return {
        "zone": list(_zones()),
        "rank": ranks,
        "size": [Sized("largest"), Sized("smallest")] if several else [],
        "relation": relations,
        "colour": [Coloured(c) for c in colours],
    }


class CandidateWriter:
    """Finds meanings for the regions of one tile; predicates are evaluated once a category."""

    def __init__(self, facts: TileFacts) -> None:
        self._facts = facts
        self._known: dict[int, dict[str, list[tuple[Predicate, Truth]]]] = {}

    def _evaluated(self, category: int) -> dict[str, list[tuple[Predicate, Truth]]]:
        if category not in self._known:
            members = self._facts.members(category)
            self._known[category] = {
                kind: [(p, p.truth(self._facts, members)) for p in predicates]
                for kind, predicates in _offered(self._facts, category).items()
            }
        return self._known[category]

    def unique(self, target: int) -> dict[str, list[Meaning]]:
        """Meanings that pick out region ``target``, by kind; pairs hold where neither part need suffice."""
        category = int(self._facts.categories[target])
        members = self._facts.members(category)
        wanted = np.where(members == target, TRUE, -TRUE)
        place = int(np.flatnonzero(members == target)[0])
        found: dict[str, list[Meaning]] = {}
        holding: list[tuple[Predicate, Truth]] = []
        for kind, predicates in self._evaluated(category).items():
            true = [(p, t) for p, t in predicates if t[place] == TRUE]
            found[kind] = [Meaning(category, (p,)) for p, t in true if (t == wanted).all()]
            if kind in ("zone", "relation", "colour"):
                holding += [(p, t) for p, t in true if not isinstance(p, Nearest)]
        found["pair"] = [
            Meaning(category, (p, q))
            for (p, t), (q, u) in combinations(holding, 2)
            if type(p) is not type(q) and (np.minimum(t, u) == wanted).all()
        ]
        return found

    def choose(self, target: int, rng: np.random.Generator, kinds: tuple[str, ...] = ()) -> Meaning | None:
        """One meaning for region ``target``, drawn by kind and then evenly; ``None`` if there is none."""
        found = {k: v for k, v in self.unique(target).items() if v and (not kinds or k in kinds)}
        if not found:
            return None
        weights = np.asarray([_WEIGHTS[k] for k in found])
        kind = list(found)[int(rng.choice(len(found), p=weights / weights.sum()))]
        return found[kind][int(rng.integers(len(found[kind])))]
