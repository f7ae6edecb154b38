"""Words for all regions of a category, and for one that is not in the picture.

An absent instruction is worded as those for what is there (one thing, one at a place, all of a kind), so that
no wording tells that nothing is meant.
"""

from dataclasses import dataclass

import numpy as np

from pipelines.build.instruct.facts import TileFacts
from pipelines.build.instruct.meaning import InZone, Predicate, Ranked, Sized
from pipelines.build.instruct.phrases import Said, pick, sentence, the
from pipelines.build.instruct.plans import ALL_OF, COLLECTIVE_PLANS, COLLECTIVE_QUESTIONS, OPEN, REFERRING
from pipelines.build.instruct.roles import may_be_confused, names_category, roles
from pipelines.build.instruct.words import article, plural, wordings
from pipelines.labels.taxonomy import taxonomy

#: How often a phrase stands alone, without a verb.
_BARE = 0.3
#: How often an absent instruction speaks of all of a kind; how often one of a single thing says where it is.
_ALL, _PLACED = 0.5, 0.6
#: What is answered where nothing is meant; EarthReason's readers say so.
_NO_TARGET = "there is no target object in the image"
#: What an absent thing may be said to be: nothing of it is compared with what is there.
_PLACES: tuple[Predicate, ...] = (
    *(
        InZone(vertical, horizontal)
        for vertical in ("top", "middle", "bottom", None)
        for horizontal in ("left", "middle", "right", None)
        if vertical is not None or horizontal in ("left", "right")
    ),
    *(Ranked(side) for side in ("left", "right", "top", "bottom")),
    Sized("largest"),
    Sized("smallest"),
)


@dataclass(frozen=True)
class Told:
    """An instruction and its answer."""

    instruction: str
    answer: str


def confused(category: int, others: set[int]) -> bool:
    """Whether a category has the name of one of ``others``, or is a kind, a part or a kin of one of them."""
    names = {taxonomy()[other].name for other in others}
    name = taxonomy()[category].name
    return name in names or name not in roles() or may_be_confused(name, names)


def all_of(category: int, rng: np.random.Generator) -> Told:
    """A referring instruction for all regions of a category."""
    noun = taxonomy()[category].noun
    words = pick(rng, ALL_OF).format(noun=noun, nouns=plural(noun))
    bare = rng.random() < _BARE
    return Told(sentence(words if bare else pick(rng, COLLECTIVE_PLANS).format(np=words)), "")


def all_that(category: int, rng: np.random.Generator) -> Told | None:
    """A question for all regions of a category, by what they are for; ``None`` where it tells the name."""
    values, other = _values(category, rng)
    question = sentence(pick(rng, COLLECTIVE_QUESTIONS).format(**values))
    if names_category(question, taxonomy()[category].name):
        return None
    return Told(question, sentence(f"the {plural(taxonomy()[category].noun)}: they {other}"))


def none_of(category: int, facts: TileFacts, rng: np.random.Generator) -> Told:
    """A referring instruction for a category that is not there.

    Args:
        category: of the taxonomy.
        facts: of the tile.
        rng: draws.
    """
    if rng.random() < _ALL:
        return Told(all_of(category, rng).instruction, sentence(_NO_TARGET))
    said = Said("", "", "", "plain", None)
    if rng.random() < _PLACED:
        wording = pick(rng, wordings(pick(rng, _PLACES), facts))
        said = Said(wording.before, "", wording.after, wording.kind, None)
    words = the(taxonomy()[category].noun, said, rng)
    bare = rng.random() < _BARE
    text = sentence(words if bare else pick(rng, REFERRING).format(np=words))
    return Told(text, sentence(_NO_TARGET))


def none_that(category: int, rng: np.random.Generator) -> Told | None:
    """A question about what a category that is not there is for; ``None`` where it gives the name away."""
    name, noun = taxonomy()[category].name, taxonomy()[category].noun
    if rng.random() < _ALL:
        told = all_that(category, rng)
        question = None if told is None else told.instruction
    else:
        values, _ = _values(category, rng)
        question = sentence(pick(rng, OPEN).format(**values))
    if question is None or names_category(question, name):
        return None
    return Told(question, sentence(f"{_NO_TARGET}: no {noun} is to be seen"))


def _values(category: int, rng: np.random.Generator) -> tuple[dict[str, str], str]:
    """What the slots of a question take, and a second role, which the answer may tell."""
    role = roles()[taxonomy()[category].name]
    first = pick(rng, role.roles)
    values = {
        "head": role.head,
        "heads": role.heads,
        "a_head": article(role.head),
        "role": first,
        "look": pick(rng, role.looks),
        "need": pick(rng, role.needs),
        "who": role.who,
    }
    return values, pick(rng, tuple(other for other in role.roles if other != first))
