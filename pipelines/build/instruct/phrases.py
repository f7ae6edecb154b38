"""Noun phrases from meanings: which words are drawn for each predicate, and how they stand around a noun."""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from pipelines.build.instruct.facts import TileFacts
from pipelines.build.instruct.meaning import Coloured, Counted, Meaning, Shaped
from pipelines.build.instruct.relations import Between
from pipelines.build.instruct.words import NUMBERS, Wording, plural, wordings

_Choice = TypeVar("_Choice")
#: What may stand between a noun and the words after it, by their kind; nothing at all is the most common.
LINKS: dict[str, tuple[str, ...]] = {
    "place": ("", "", "", "located", "that is", "which lies", "found", "situated", "that lies", "visible"),
    "state": ("", "", "that is", "which is"),
    "plain": ("",),
}


@dataclass(frozen=True)
class Said:
    """Words for a meaning.

    Attributes:
        rank: an adjective that compares ("leftmost", "larger"), or empty.
        traits: adjectives of shape and colour.
        after: words that follow the noun.
        kind: of ``after``, see :class:`~pipelines.build.instruct.words.Wording`.
        number: how many of the category there are, where the meaning says so.
    """

    rank: str
    traits: str
    after: str
    kind: str
    number: int | None

    @property
    def before(self) -> str:
        """All adjectives in their order."""
        return " ".join(w for w in (self.rank, self.traits) if w)


def say(meaning: Meaning, facts: TileFacts, rng: np.random.Generator) -> Said:
    """Draws a wording for each predicate and puts them in an order that reads well."""
    number = next((p.number for p in meaning.predicates if isinstance(p, Counted)), None)
    rank: list[str] = []
    traits: list[str] = []
    after: list[tuple[int, Wording]] = []
    for predicate in meaning.predicates:
        if isinstance(predicate, Counted):
            continue
        wording = pick(rng, wordings(predicate, facts, number == 2))
        if wording.before:
            (traits if isinstance(predicate, Shaped | Coloured) else rank).append(wording.before)
        if wording.after:
            # What counts or measures follows its noun at once; "between a and b" closes the phrase.
            order = {"plain": 0, "place": 1, "state": 2}[wording.kind]
            after.append((3 if isinstance(predicate, Between) else order, wording))
    after.sort(key=lambda pair: pair[0])
    words = [w for _, w in after]
    kinds = {w.kind for w in words} or {"plain"}
    kind = "plain" if "plain" in kinds else "state" if "state" in kinds else "place"
    return Said(" ".join(rank), " ".join(traits), _joined(words), kind, number)


def _joined(words: list[Wording]) -> str:
    plain = [w.after for w in words if w.kind == "plain"]
    rest = [w.after for w in words if w.kind != "plain"]
    listed = " and ".join([", ".join(rest[:-1]), rest[-1]] if len(rest) > 1 else rest)
    return " ".join([*plain, *([listed] if listed else [])])


def the(noun: str, said: Said, rng: np.random.Generator) -> str:
    """The definite noun phrase, with "the"."""
    head = " ".join(w for w in ("the", said.before, noun) if w)
    if not said.after:
        return head
    link = pick(rng, LINKS[said.kind])
    return " ".join(w for w in (head, link, said.after) if w)


def group(meaning: Meaning, facts: TileFacts, number: int) -> str:
    """All regions of the category, counted: "two ponds"."""
    return f"{NUMBERS[number]} {plural(facts.noun(meaning.category))}"


def counted(meaning: Meaning, facts: TileFacts, said: Said, rng: np.random.Generator) -> str:
    """The noun phrase of a counted meaning: the only one, or one of so many."""
    noun = facts.noun(meaning.category)
    assert said.number is not None
    if said.number == 1:
        only = " ".join(
            w for w in (pick(rng, ("the only", "the only", "the single")), said.traits, noun) if w
        )
        return (
            f"{only} {said.after}" if said.after else f"{only}{pick(rng, ('', ' in this image', ' in view'))}"
        )
    many = f"of the {group(meaning, facts, said.number)}"
    head = " ".join(w for w in ("the", said.before) if w)
    short = said.rank and not said.traits and rng.random() < 0.5
    one = f"{head} {many}" if short else f"{head} one {many}"
    if not said.after:
        return one
    if said.before:
        return f"{one}, {said.after}"
    link = {"place": ("that is", "which lies", "that lies"), "state": ("that is", "which is"), "plain": ("",)}
    return " ".join(w for w in (one, pick(rng, link[said.kind]), said.after) if w)


def sentence(text: str) -> str:
    """With a capital at the beginning of each sentence and a mark at the end."""
    parts = [part[:1].upper() + part[1:] for part in text.split(". ")]
    whole = ". ".join(parts)
    return whole if whole.endswith((".", "?")) else f"{whole}."


def pick(rng: np.random.Generator, choices: tuple[_Choice, ...]) -> _Choice:
    """One of the choices, drawn evenly."""
    return choices[int(rng.integers(len(choices)))]
