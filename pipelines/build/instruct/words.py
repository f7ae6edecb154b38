"""Words for predicates: adjectives that stand before a noun, and phrases that follow it."""

from dataclasses import dataclass
from typing import Literal

from pipelines.build.instruct.facts import TileFacts
from pipelines.build.instruct.meaning import AtEdge, Coloured, InZone, Predicate, Ranked, Shaped, Sized
from pipelines.build.instruct.relations import Beside, Between, Nearest, SideOf, Surrounded

_SIDE_OF = {
    "left": ("to the left of", "left of", "on the left side of"),
    "right": ("to the right of", "right of", "on the right side of"),
    "top": ("above",),
    "bottom": ("below",),
}
_OUTERMOST = {
    "left": ("leftmost", "furthest to the left"),
    "right": ("rightmost", "furthest to the right"),
    "top": ("topmost", "furthest up"),
    "bottom": ("bottommost", "furthest down"),
}
#: Of two things, where one would say "leftmost" of many.
_OF_TWO = {"left": "left", "right": "right", "top": "upper", "bottom": "lower"}
_ORDINALS = {2: "second", 3: "third"}
NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}
_PLURALS = {
    "cloud or shadow": "clouds or shadows",
    "mine, dump or construction site": "mines, dumps or construction sites",
}


@dataclass(frozen=True)
class Wording:
    """One way to say a predicate: words before the noun, or after it (one of the two is empty).

    Attributes:
        before: an adjective.
        after: a phrase that follows the noun.
        kind: what may stand between noun and ``after``: "located" or "that is" before a "place", "that is"
            before a "state", nothing before what is "plain".
    """

    before: str = ""
    after: str = ""
    kind: Literal["place", "state", "plain"] = "place"


def article(noun: str) -> str:
    """A noun with its indefinite article."""
    return f"{'an' if noun[0] in 'aeiouAEIOU' else 'a'} {noun}"


def plural(noun: str) -> str:
    """A noun phrase of the taxonomy for several things."""
    if noun in _PLURALS:
        return _PLURALS[noun]
    head, of, rest = noun.partition(" of ")
    if head.endswith(("s", "x", "z", "ch", "sh")):
        head += "es"
    elif head.endswith("y") and head[-2] not in "aeiou":
        head = head[:-1] + "ies"
    else:
        head += "s"
    return head + of + rest


def wordings(predicate: Predicate, facts: TileFacts, of_two: bool = False) -> tuple[Wording, ...]:
    """Every way to say a predicate.

    Args:
        predicate: what shall be said.
        facts: of the tile, for the nouns.
        of_two: compares two things ("the larger one"), where it would else rank many ("the largest one").

    Raises:
        TypeError: an unknown kind of predicate.
    """
    match predicate:
        case InZone(vertical, horizontal):
            return tuple(Wording(after=text) for text in _zone(vertical, horizontal))
        case Ranked() | Sized() | Shaped() | Coloured():
            return _comparison(predicate, of_two)
        case AtEdge(side):
            edge = f"the {side} edge of the image"
            return tuple(Wording(after=f"{w} {edge}", kind="state") for w in ("touching", "cut off by"))
        case _:
            return _relation(predicate, facts, of_two)


def _comparison(predicate: Ranked | Sized | Shaped | Coloured, of_two: bool) -> tuple[Wording, ...]:
    """Place in an order, size, shape and colour."""
    match predicate:
        case Ranked(side, 1):
            if of_two:
                return (Wording(before=_OF_TWO[side]),)
            adjective, after = _OUTERMOST[side]
            return Wording(before=adjective), Wording(after=after, kind="state")
        case Ranked(side, rank):
            return (Wording(before=_ORDINALS[rank], after=f"from the {side}", kind="plain"),)
        case Sized(which):
            if of_two:
                words = ("larger", "bigger") if which == "largest" else ("smaller",)
            else:
                words = ("largest", "biggest") if which == "largest" else ("smallest",)
            return *(Wording(w) for w in words), Wording(after=f"with the {words[0]} area", kind="plain")
        case Shaped(kind):
            return tuple(
                Wording(w) for w in (("elongated", "narrow") if kind == "elongated" else ("compact",))
            )
        case Coloured(colour):
            return (Wording(colour),)


def _relation(predicate: Predicate, facts: TileFacts, of_two: bool) -> tuple[Wording, ...]:
    """Relations to regions of other categories."""
    match predicate:
        case SideOf(side, anchor):
            return tuple(Wording(after=f"{words} the {facts.noun(anchor)}") for words in _SIDE_OF[side])
        case Beside(anchor):
            named = _named(facts, anchor)
            return tuple(Wording(after=f"{words} {named}") for words in ("next to", "beside", "close to"))
        case Nearest(anchor, furthest):
            if of_two:
                choices = ("further from",) if furthest else ("nearer to", "closer to")
            else:
                choices = ("furthest from",) if furthest else ("nearest to", "closest to")
            return tuple(Wording(after=f"{w} the {facts.noun(anchor)}", kind="state") for w in choices)
        case Between(first, second):
            return (Wording(after=f"between the {facts.noun(first)} and the {facts.noun(second)}"),)
        case Surrounded(anchor):
            named = _named(facts, anchor)
            return tuple(
                Wording(after=f"{w} {named}", kind="state") for w in ("surrounded by", "enclosed by")
            )
    raise TypeError(f"no words for {predicate!r}")


def _named(facts: TileFacts, anchor: int) -> str:
    noun = facts.noun(anchor)
    return f"the {noun}" if facts.sole(anchor) is not None else article(noun)


def _zone(vertical: str | None, horizontal: str | None) -> tuple[str, ...]:
    upper = {"top": "upper", "bottom": "lower"}
    if vertical == "middle" and horizontal == "middle":
        return "in the centre", "in the middle of the image", "near the centre of the image"
    if vertical == "middle":
        return f"on the {horizontal} at mid-height", f"halfway up on the {horizontal} side"
    if vertical is None:
        return f"on the {horizontal}", f"on the {horizontal} side", f"in the {horizontal} half of the image"
    if horizontal is None:
        half = f"in the {upper[vertical]} half of the image"
        return f"at the {vertical}", half, f"in the {upper[vertical]} part of the image"
    if horizontal == "middle":
        return f"in the {vertical} centre", f"at the {vertical} in the middle"
    return (
        f"in the {vertical} {horizontal}",
        f"at the {upper[vertical]} {horizontal}",
        f"in the {upper[vertical]} {horizontal} part of the image",
        f"towards the {vertical} {horizontal}",
    )
