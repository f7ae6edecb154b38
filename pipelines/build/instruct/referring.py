"""Referring phrases: a meaning that is uniquely true, put into words by one of many sentence plans."""

import numpy as np

from pipelines.build.instruct.candidates import CandidateWriter
from pipelines.build.instruct.facts import TileFacts
from pipelines.build.instruct.meaning import Meaning
from pipelines.build.instruct.words import Wording, wordings

#: Plans for a noun with words after it; {n} is adjective and noun, {p} the words after it.
_PLACED = (
    "the {n} {p}",
    "{n} {p}",
    "the {n} located {p}",
    "the {n} that is {p}",
    "the {n} found {p}",
    "the {n} which lies {p}",
    "segment the {n} {p}",
    "please mark the {n} {p}",
    "outline the {n} that lies {p}",
    "I am looking for the {n} {p}",
)
#: Plans for a noun without words after it.
_BARE = (
    "the {n}",
    "{n}",
    "segment the {n}",
    "the {n} in this image",
    "please mark the {n}",
    "the {n} in the scene",
    "outline the {n}",
    "find the {n} in the picture",
)
#: Words after the noun that do not follow "located" and the like.
_ONLY_PLAIN = ("with ", "from ")


def say(meaning: Meaning, facts: TileFacts, rng: np.random.Generator) -> Wording:
    """Words before and after the noun for a meaning's predicates, one wording drawn for each."""
    before, after = [], []
    for predicate in meaning.predicates:
        choices = wordings(predicate, facts)
        wording = choices[int(rng.integers(len(choices)))]
        before += [wording.before] if wording.before else []
        after += [wording.after] if wording.after else []
    return Wording(" ".join(before), " and ".join(after))


def phrase(meaning: Meaning, facts: TileFacts, rng: np.random.Generator) -> str:
    """A referring phrase with this meaning."""
    words = say(meaning, facts, rng)
    noun = f"{words.before} {facts.noun(meaning.category)}".strip()
    if not words.after:
        return _BARE[int(rng.integers(len(_BARE)))].format(n=noun)
    plans = _PLACED[:2] if words.after.startswith(_ONLY_PLAIN) else _PLACED
    return plans[int(rng.integers(len(plans)))].format(n=noun, p=words.after)


def refer(
    writer: CandidateWriter, facts: TileFacts, target: int, rng: np.random.Generator
) -> tuple[str, Meaning] | None:
    """A phrase that picks out region ``target``, with its meaning; ``None`` if nothing does clearly."""
    category = int(facts.categories[target])
    if facts.sole(category) is not None and rng.random() < 0.4:
        meaning: Meaning | None = Meaning(category)
    else:
        meaning = writer.choose(target, rng)
    if meaning is None and facts.sole(category) is not None:
        meaning = Meaning(category)
    if meaning is None or not meaning.picks(facts, target):
        return None
    return phrase(meaning, facts, rng), meaning
