"""Predicates that relate a region to regions of other categories: sides, distances, what lies between."""

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from pipelines.build.instruct.facts import TileFacts
from pipelines.build.instruct.meaning import FALSE, LEAD, SPAN, UNCLEAR, Side, Truth, graded

#: How far a thing may reach past the edge of the anchor that it lies to a side of.
_OVERLAP = 0.02
#: "Beside": true up to the first distance, false beyond the second.
_BESIDE_TRUE, _BESIDE_FALSE = 0.06, 0.12
_TOUCH_PX = 2
#: "Between": place along the line from anchor to anchor, and distance from it as a share of its length.
_ALONG_TRUE, _ALONG_FALSE = (0.25, 0.75), (0.1, 0.9)
_ACROSS_TRUE, _ACROSS_FALSE = 0.15, 0.35
_APART = 0.3
#: "Surrounded": share of the rim that the anchor covers.
_RIM_TRUE, _RIM_FALSE = 0.8, 0.4


@dataclass(frozen=True)
class SideOf:
    """The region lies to a side of the tile's only region of another category."""

    side: Side
    anchor: int

    def truth(self, facts: TileFacts, members: NDArray[np.int64]) -> Truth:
        """See :class:`Predicate`."""
        place = facts.sole(self.anchor)
        if place is None:
            return np.full(len(members), UNCLEAR, np.int8)
        return facts.once(self, partial(_to_a_side, facts, self.side, place))[members]


def _to_a_side(facts: TileFacts, side: Side, place: int) -> Truth:
    """Whether each region lies to a side of region ``place``."""
    offset = facts.centres - facts.centres[place]
    theirs, anchor = facts.all_boxes, facts.all_boxes[place]
    axis = 0 if side in ("left", "right") else 1
    first = side in ("left", "top")
    along = -offset[:, axis] if first else offset[:, axis]
    gap = anchor[axis] - theirs[:, axis + 2] if first else theirs[:, axis] - anchor[axis + 2]
    steep = along > 1.5 * np.abs(offset[:, 1 - axis])
    possible = along > 0.02  # a diagonal position may pass for this side, so it counts against
    return graded((along > 0.1) & steep & (gap > -_OVERLAP), possible)


@dataclass(frozen=True)
class Beside:
    """The region lies next to a region of another category."""

    anchor: int

    def truth(self, facts: TileFacts, members: NDArray[np.int64]) -> Truth:
        """See :class:`Predicate`."""
        anchors = facts.members(self.anchor)
        if not len(anchors):
            return np.full(len(members), FALSE, np.int8)
        distance = facts.distances(self.anchor, members)
        near = distance <= _BESIDE_TRUE
        # Of two things that touch, one reaching around the other, one lies on or in the other.
        inside = np.zeros(len(members), bool)
        theirs = facts.boxes(members)
        for outer in facts.boxes(anchors):
            inside |= (theirs[:, :2] >= outer[:2]).all(1) & (theirs[:, 2:] <= outer[2:]).all(1)
            inside |= (theirs[:, :2] <= outer[:2]).all(1) & (theirs[:, 2:] >= outer[2:]).all(1)
        touching = distance * max(facts.height, facts.width) <= _TOUCH_PX
        return graded(near & ~(inside & touching), distance <= _BESIDE_FALSE)


@dataclass(frozen=True)
class Nearest:
    """Of its category, the region closest to (or furthest from) the only region of another category."""

    anchor: int
    furthest: bool = False

    def truth(self, facts: TileFacts, members: NDArray[np.int64]) -> Truth:
        """See :class:`Predicate`."""
        if facts.sole(self.anchor) is None:
            return np.full(len(members), UNCLEAR, np.int8)
        distance = facts.distances(self.anchor, members)
        distance = -distance if self.furthest else distance
        close = distance - distance.min() < LEAD
        return graded(close & (close.sum() == 1), close)


@dataclass(frozen=True)
class Between:
    """The region lies between the only regions of two other categories."""

    first: int
    second: int

    def truth(self, facts: TileFacts, members: NDArray[np.int64]) -> Truth:
        """See :class:`Predicate`."""
        unclear = np.full(len(members), UNCLEAR, np.int8)
        ends = (facts.sole(self.first), facts.sole(self.second))
        if ends[0] is None or ends[1] is None:
            return unclear
        places = np.asarray(ends, np.int64)
        boxes, (start, end) = facts.boxes(places), facts.centres[places]
        length = float(np.linalg.norm(end - start))
        if length < _APART or (boxes[:, 2:] - boxes[:, :2] > SPAN).any():
            return unclear
        line, offset = (end - start) / length, facts.centres[members] - start
        along = offset @ line / length
        across = np.abs(offset @ np.asarray([-line[1], line[0]])) / length
        inner = (along >= _ALONG_TRUE[0]) & (along <= _ALONG_TRUE[1]) & (across <= _ACROSS_TRUE)
        outer = (along >= _ALONG_FALSE[0]) & (along <= _ALONG_FALSE[1]) & (across <= _ACROSS_FALSE)
        theirs = facts.boxes(members)
        small = ((theirs[:, 2:] - theirs[:, :2]).max(1) < length) & ~_meet(theirs, boxes)
        return np.asarray(np.minimum(graded(inner, outer), np.where(small | ~outer, 1, UNCLEAR)), np.int8)


@dataclass(frozen=True)
class Surrounded:
    """A region of another category encloses the region."""

    anchor: int

    def truth(self, facts: TileFacts, members: NDArray[np.int64]) -> Truth:
        """See :class:`Predicate`."""
        share = facts.enclosed(self.anchor, members)
        return graded(share >= _RIM_TRUE, share > _RIM_FALSE)


def _meet(boxes: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of ``boxes`` overlap any of ``others``."""
    found = np.zeros(len(boxes), bool)
    for other in others:
        found |= (boxes[:, :2] < other[2:]).all(1) & (boxes[:, 2:] > other[:2]).all(1)
    return found
