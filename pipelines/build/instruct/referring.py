"""Referring phrases: a meaning that is uniquely true, put into words by one of many sentence plans."""

import numpy as np

from pipelines.build.instruct.candidates import CandidateWriter
from pipelines.build.instruct.facts import TileFacts
from pipelines.build.instruct.meaning import Meaning
from pipelines.build.instruct.phrases import counted, group, pick, say, sentence, the
from pipelines.build.instruct.plans import REFERRING, REFERRING_COUNTED

#: How often the phrase stands alone, without a verb.
_BARE = 0.3
#: How often a counted meaning names the group first.
_GROUP_FIRST = 0.5
#: How often a category's only region is called by its bare name.
_SOLE = 0.25


def phrase(meaning: Meaning, facts: TileFacts, rng: np.random.Generator) -> str:
    """A referring instruction with this meaning."""
    said = say(meaning, facts, rng)
    if said.number is not None and said.number > 1 and rng.random() < _GROUP_FIRST:
        values = {"group": group(meaning, facts, said.number), "one": the("one", said, rng)}
        return sentence(pick(rng, REFERRING_COUNTED).format(**values))
    if said.number is None:
        words = the(facts.noun(meaning.category), said, rng)
    else:
        words = counted(meaning, facts, said, rng)
    if rng.random() < _BARE:
        return sentence(words)
    return sentence(pick(rng, REFERRING).format(np=words))


def refer(
    writer: CandidateWriter, facts: TileFacts, target: int, rng: np.random.Generator
) -> tuple[str, Meaning] | None:
    """A phrase that picks out region ``target``, with its meaning; ``None`` if nothing does clearly."""
    category = int(facts.categories[target])
    sole = facts.sole(category) is not None
    meaning = None if sole and rng.random() < _SOLE else writer.choose(target, rng)
    if meaning is None and sole:
        meaning = writer.enriched(Meaning(category), target, rng)
    if meaning is None or not meaning.picks(facts, target):
        return None
    return phrase(meaning, facts, rng), meaning
