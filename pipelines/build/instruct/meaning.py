"""Meanings of phrases, apart from their words: predicates that are true, false or unclear of each region.

A phrase may be used only when its meaning is true of exactly its target and clearly false of every other
region of the category: an unclear case (a centroid near a border, two sizes almost alike) counts against it.
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from pipelines.build.instruct.facts import TileFacts

TRUE, UNCLEAR, FALSE = 1, 0, -1
Truth = NDArray[np.int8]
Side = Literal["left", "right", "top", "bottom"]

#: Zones of the unit interval: true up to the first number, false beyond the second.
_EDGE_TRUE, _EDGE_FALSE = 0.40, 0.48
_MID_TRUE, _MID_FALSE = (0.38, 0.62), (0.30, 0.70)
#: A region longer than this share of the tile has no place along that axis.
SPAN = 0.6
#: Least lead over the next region for "leftmost" and its like, as a share of the tile.
LEAD = 0.06
#: Least ratio of areas for "largest" and "smallest".
_RATIO = 1.3
#: Long over short side: elongated from the first on, not from the second down; compact up to the third.
_LONG_TRUE, _LONG_FALSE, _COMPACT_TRUE = 3.0, 2.0, 1.35
#: What ends closer to an edge, as a share of the tile, may seem to touch it.
_EDGE_GAP = 0.03
#: A region below this share of the tile may be overlooked when things are counted.
_COUNTABLE = 0.002


class Predicate(Protocol):
    """A property that regions of a category have or lack."""

    def truth(self, facts: TileFacts, members: NDArray[np.int64]) -> Truth:
        """TRUE, UNCLEAR or FALSE for each of ``members`` (places of all regions of the category)."""
        ...


def graded(true: NDArray[np.bool_], possible: NDArray[np.bool_]) -> Truth:
    """TRUE where ``true``, else UNCLEAR where ``possible``, else FALSE."""
    return np.where(true, TRUE, np.where(possible, UNCLEAR, FALSE)).astype(np.int8)


def _toward(side: Side, facts: TileFacts, members: NDArray[np.int64]) -> NDArray[np.float64]:
    """Coordinate that grows away from ``side``."""
    value = facts.centres[members, 0 if side in ("left", "right") else 1]
    return value if side in ("left", "top") else 1.0 - value


@dataclass(frozen=True)
class InZone:
    """The centroid lies in a part of the tile; ``None`` leaves an axis open."""

    vertical: Literal["top", "middle", "bottom"] | None
    horizontal: Literal["left", "middle", "right"] | None

    def truth(self, facts: TileFacts, members: NDArray[np.int64]) -> Truth:
        """See :class:`Predicate`."""
        found = np.full(len(members), TRUE, np.int8)
        for name, axis in ((self.vertical, 1), (self.horizontal, 0)):
            if name is not None:
                everywhere = facts.once((name, axis), partial(_at, facts, name, axis))
                found = np.minimum(found, everywhere[members])
        return found


def _at(facts: TileFacts, name: str, axis: int) -> Truth:
    """Whether each region lies at this part of an axis; what spans the tile is not "at" any part of it."""
    value, boxes = facts.centres[:, axis], facts.all_boxes
    spans = boxes[:, axis + 2] - boxes[:, axis] > SPAN
    if name == "middle":
        inner = (value >= _MID_TRUE[0]) & (value <= _MID_TRUE[1])
        outer = (value >= _MID_FALSE[0]) & (value <= _MID_FALSE[1])
        there = graded(inner, outer)
    else:
        low = value if name in ("top", "left") else 1.0 - value
        there = graded(low <= _EDGE_TRUE, low <= _EDGE_FALSE)
    return np.minimum(there, np.where(spans, UNCLEAR, TRUE).astype(np.int8))


@dataclass(frozen=True)
class Ranked:
    """The k-th region of its category counted from a side (1 is the outermost)."""

    side: Side
    rank: int = 1

    def truth(self, facts: TileFacts, members: NDArray[np.int64]) -> Truth:
        """See :class:`Predicate`."""
        value = _toward(self.side, facts, members)
        found = np.full(len(members), FALSE, np.int8)
        if self.rank > len(members):
            return found
        order = np.argsort(value, kind="stable")
        chosen = order[self.rank - 1]
        close = np.abs(value - value[chosen]) < LEAD
        found[close] = UNCLEAR
        # Centres and edges must agree on the order, or people would not.
        axis = {"left": 0, "top": 1, "right": 2, "bottom": 3}[self.side]
        edge = facts.boxes(members)[:, axis]
        edge = edge if axis < 2 else 1.0 - edge
        agree = np.argsort(edge, kind="stable")[self.rank - 1] == chosen
        found[chosen] = TRUE if agree and close.sum() == 1 else UNCLEAR
        return found


@dataclass(frozen=True)
class Sized:
    """The largest or the smallest region of its category."""

    which: Literal["largest", "smallest"]

    def truth(self, facts: TileFacts, members: NDArray[np.int64]) -> Truth:
        """See :class:`Predicate`."""
        size = facts.areas[members] if self.which == "largest" else 1.0 / facts.areas[members]
        best = size.max()
        close = size * _RATIO > best
        return graded((size == best) & (close.sum() == 1), close)


@dataclass(frozen=True)
class Coloured:
    """The source says that the thing has this colour; of a thing without a word it is unclear."""

    colour: str

    def truth(self, facts: TileFacts, members: NDArray[np.int64]) -> Truth:
        """See :class:`Predicate`."""
        words = [facts.colours[i] for i in members]
        return np.asarray(
            [UNCLEAR if w is None else TRUE if w == self.colour else FALSE for w in words], np.int8
        )


@dataclass(frozen=True)
class Shaped:
    """The region is long and narrow, or about as wide as high."""

    kind: Literal["elongated", "compact"]

    def truth(self, facts: TileFacts, members: NDArray[np.int64]) -> Truth:
        """See :class:`Predicate`."""
        value = facts.elongations[members]
        if self.kind == "elongated":
            return graded(value >= _LONG_TRUE, value > _LONG_FALSE)
        return graded(value <= _COMPACT_TRUE, value < _LONG_FALSE)


@dataclass(frozen=True)
class AtEdge:
    """The region is cut off by an edge of the tile."""

    side: Side

    def truth(self, facts: TileFacts, members: NDArray[np.int64]) -> Truth:
        """See :class:`Predicate`."""
        boxes = facts.boxes(members)
        gap = {"left": boxes[:, 0], "top": boxes[:, 1], "right": 1 - boxes[:, 2], "bottom": 1 - boxes[:, 3]}
        return graded(gap[self.side] <= 0, gap[self.side] <= _EDGE_GAP)


@dataclass(frozen=True)
class Counted:
    """The tile holds this many regions of the category, none so small that one might not count it."""

    number: int

    def truth(self, facts: TileFacts, members: NDArray[np.int64]) -> Truth:
        """See :class:`Predicate`."""
        small = facts.areas[members].min(initial=np.inf) < _COUNTABLE * facts.height * facts.width
        right = TRUE if len(members) == self.number else FALSE
        return np.full(len(members), UNCLEAR if small else right, np.int8)


@dataclass(frozen=True)
class Meaning:
    """A category and the predicates that all must hold; no predicate means "the only one"."""

    category: int
    predicates: tuple[Predicate, ...] = ()

    def truth(self, facts: TileFacts) -> tuple[NDArray[np.int64], Truth]:
        """Places of the category's regions, and the meaning's truth of each."""
        members = facts.members(self.category)
        found = np.full(len(members), TRUE, np.int8)
        for predicate in self.predicates:
            found = np.minimum(found, predicate.truth(facts, members))
        return members, found

    def picks(self, facts: TileFacts, target: int) -> bool:
        """Whether the meaning is true of region ``target`` and clearly false of all others."""
        members, truth = self.truth(facts)
        return all(t == (TRUE if m == target else FALSE) for m, t in zip(members, truth, strict=True))
