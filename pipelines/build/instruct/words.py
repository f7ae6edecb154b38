"""Words for predicates: adjectives that stand before a noun, and phrases that follow it."""

from dataclasses import dataclass

from pipelines.build.instruct.facts import TileFacts
from pipelines.build.instruct.meaning import (
    Beside,
    Coloured,
    InZone,
    Nearest,
    Predicate,
    Ranked,
    SideOf,
    Sized,
)

_SIDE_OF = {
    "left": ("to the left of", "left of"),
    "right": ("to the right of", "right of"),
    "top": ("above",),
    "bottom": ("below",),
}
_OUTERMOST = {
    "left": ("leftmost", "furthest to the left"),
    "right": ("rightmost", "furthest to the right"),
    "top": ("topmost", "furthest up"),
    "bottom": ("bottommost", "furthest down"),
}
_ORDINALS = {2: "second", 3: "third"}


@dataclass(frozen=True)
class Wording:
    """One way to say a predicate: words before the noun, or after it (one of the two is empty)."""

    before: str = ""
    after: str = ""


def article(noun: str) -> str:
    """A noun with its indefinite article."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def wordings(predicate: Predicate, facts: TileFacts) -> tuple[Wording, ...]:
    """Every way to say a predicate.

    Raises:
        TypeError: an unknown kind of predicate.
    """
    match predicate:
        case InZone(vertical, horizontal):
            return tuple(Wording(after=text) for text in _zone(vertical, horizontal))
        case Ranked(side, 1):
            adjective, after = _OUTERMOST[side]
            return Wording(before=adjective), Wording(after=after)
        case Ranked(side, rank):
            end = {"left": "the left", "right": "the right", "top": "the top", "bottom": "the bottom"}[side]
            return (Wording(before=_ORDINALS[rank], after=f"from {end}"),)
        case Sized(which):
            other = "biggest" if which == "largest" else "smallest"
            area = "largest" if which == "largest" else "smallest"
            return Wording(before=which), Wording(before=other), Wording(after=f"with the {area} area")
        case Coloured(colour):
            return (Wording(before=colour),)
        case SideOf(side, anchor):
            return tuple(Wording(after=f"{words} the {facts.noun(anchor)}") for words in _SIDE_OF[side])
        case Beside(anchor):
            noun = facts.noun(anchor)
            named = f"the {noun}" if facts.sole(anchor) is not None else article(noun)
            return tuple(Wording(after=f"{words} {named}") for words in ("next to", "beside", "close to"))
        case Nearest(anchor, furthest):
            noun = facts.noun(anchor)
            words = ("furthest from",) if furthest else ("nearest to", "closest to")
            return tuple(Wording(after=f"{w} the {noun}") for w in words)
    raise TypeError(f"no words for {predicate!r}")


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
        f"in the {vertical} left" if horizontal == "left" else f"in the {vertical} right",
        f"at the {upper[vertical]} {horizontal}",
        f"in the {upper[vertical]} {horizontal} part of the image",
        f"towards the {vertical} {horizontal}",
    )
