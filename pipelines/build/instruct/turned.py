"""The embedded writer's texts for the other seven views of a tile: turned in meaning, not in letters.

A meaning is turned with its tile (left becomes right, the second from the top the second from the left), its
truth is evaluated anew on the turned regions, and only what still picks out the target is put into words.
"""

from typing import Any, Final

import numpy as np

from pipelines.build.instruct.candidates import CandidateWriter
from pipelines.build.instruct.facts import TileFacts
from pipelines.build.instruct.meaning import AtEdge, InZone, Meaning, Predicate, Ranked, Side
from pipelines.build.instruct.reasoning import Question, ask
from pipelines.build.instruct.referring import phrase
from pipelines.build.instruct.relations import SideOf
from pipelines.build.seeds import generator
from pipelines.labels.regions import Region
from unigeoseg.samples.view import OTHER_TURNS, View
from unigeoseg.tasks import REFERRING

_FLIPPED: Final[dict[str, Side]] = {"left": "right", "right": "left", "top": "top", "bottom": "bottom"}
#: Where each side lies after a quarter turn against the clock.
_TURNED: Final[dict[str, Side]] = {"left": "bottom", "bottom": "right", "right": "top", "top": "left"}


class TurnedTile:
    """The other views of a tile.

    Args:
        facts: of the tile as it is.
        name: of the tile, for all draws.
        seed: the build's.
    """

    def __init__(self, facts: TileFacts, name: str, seed: int) -> None:
        self._name, self._seed = name, seed
        self._facts = {turn: turned_facts(facts, *turn) for turn in OTHER_TURNS}

    def texts(self, task: str, target: int, meaning: Meaning) -> list[dict[str, str] | None]:
        """What says of each view what ``meaning`` says of the tile; views as in ``OTHER_TURNS`` of ``view``.

        Args:
            task: referring or reasoning.
            target: place of the region.
            meaning: of the text as it is.

        Returns:
            ``instruction`` and ``answer`` of each view, or ``None`` where the meaning would not be clear.
        """
        return [self._text(task, target, meaning, *turn) for turn in OTHER_TURNS]

    def _text(
        self, task: str, target: int, meaning: Meaning, flip: bool, turns: int
    ) -> dict[str, str] | None:
        facts, other = self._facts[flip, turns], turned_meaning(meaning, flip, turns)
        if not other.picks(facts, target):
            return None
        rng = generator(self._seed, "view", task, self._name, target, int(flip), turns)
        if task == REFERRING:
            return {"instruction": phrase(other, facts, rng), "answer": ""}
        question = ask(CandidateWriter(facts), facts, target, rng, other)
        if not isinstance(question, Question):
            return None
        return {"instruction": question.instruction, "answer": question.answer}


def turned_facts(facts: TileFacts, flip: bool, turns: int) -> TileFacts:
    """What the writer knows of a tile that is flipped, then turned by quarters; regions keep their places."""
    view = View(flip, turns, (0, facts.height, 0, facts.width))
    regions = []
    for region in facts.regions:
        extent = (region.y0, region.y1, region.x0, region.x1)
        y0, y1, x0, x1 = view.extent(extent, facts.height, facts.width)
        crop = np.rot90(np.flip(region.crop, 1) if flip else region.crop, turns)
        regions.append(Region(region.category_id, y0, x0, y1, x1, np.ascontiguousarray(crop), region.colour))
    height, width = (facts.width, facts.height) if turns % 2 else (facts.height, facts.width)
    return TileFacts(regions, height, width)


def turned_meaning(meaning: Meaning, flip: bool, turns: int) -> Meaning:
    """The same meaning of the flipped and turned tile."""
    predicates = meaning.predicates
    for sides in [_FLIPPED] * flip + [_TURNED] * turns:
        predicates = tuple(_moved(predicate, sides) for predicate in predicates)
    return Meaning(meaning.category, predicates)


def _moved(predicate: Predicate, sides: dict[str, Side]) -> Predicate:
    """A predicate once each side of the picture is another; those that name no side stay."""
    match predicate:
        case Ranked(side, rank):
            return Ranked(sides[side], rank)
        case AtEdge(side):
            return AtEdge(sides[side])
        case SideOf(side, anchor):
            return SideOf(sides[side], anchor)
        case InZone(vertical, horizontal):
            return _zone(vertical, horizontal, sides)
    return predicate


def _zone(vertical: str | None, horizontal: str | None, sides: dict[str, Side]) -> InZone:
    moved: Any = (
        None if name is None else "middle" if name == "middle" else sides[name]
        for name in (vertical, horizontal)
    )
    first, second = moved
    crosses = sides["top"] in ("left", "right")
    return InZone(second, first) if crosses else InZone(first, second)
