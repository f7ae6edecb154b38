"""Reasoning questions: what a thing is for, never what it is called, and cues that set it apart."""

from dataclasses import dataclass

import numpy as np

from pipelines.build.instruct.candidates import CandidateWriter
from pipelines.build.instruct.facts import TileFacts
from pipelines.build.instruct.meaning import Counted, Meaning
from pipelines.build.instruct.phrases import Said, counted, pick, say, sentence, the
from pipelines.build.instruct.plans import ATTRIBUTE, CONTEXT
from pipelines.build.instruct.roles import Role, may_be_confused, names_category, roles, telling_anchors
from pipelines.build.instruct.words import NUMBERS, article
from pipelines.labels.taxonomy import taxonomy

#: Most regions of a category for a context question.
_MOST = 3


@dataclass(frozen=True)
class Question:
    """A reasoning instruction, its kind, the explanation, and the meaning of its cue (if any)."""

    subtask: str
    instruction: str
    answer: str
    meaning: Meaning


def ask(
    writer: CandidateWriter,
    facts: TileFacts,
    target: int,
    rng: np.random.Generator,
    meaning: Meaning | None = None,
) -> Question | str:
    """A question for region ``target``, or the reason why there is none.

    Args:
        writer: finds what sets the region apart.
        facts: of the tile.
        target: place of the region.
        rng: draws.
        meaning: what sets it apart, where that is chosen already.
    """
    category = int(facts.categories[target])
    name, members = taxonomy()[category].name, facts.members(category)
    role = roles().get(name)
    if role is None:
        return "no_role_known"
    if may_be_confused(name, {taxonomy()[int(c)].name for c in np.unique(facts.categories)}):
        return "role_not_unique"
    if len(members) > _MOST:
        return "too_many_of_category"
    values = {
        "head": role.head,
        "heads": role.heads,
        "a_head": article(role.head),
        "role": pick(rng, role.roles),
        "look": pick(rng, role.looks),
        "need": pick(rng, role.needs),
        "who": role.who,
    }
    if len(members) == 1:
        meaning, subtask, plan = Meaning(category), "attribute", pick(rng, ATTRIBUTE)
        answer = sentence(f"the {facts.noun(category)}: it {_reason(role, values, rng)}")
    else:
        chosen = meaning or writer.choose(target, rng, telling_anchors(name))
        if chosen is None:
            return "no_unique_cue"
        meaning, subtask, plan = chosen, "context", pick(rng, CONTEXT)
        said = say(meaning, facts, rng)
        values |= {"cue": the("one", said, rng), "some": _some(facts, category)}
        answer = sentence(f"{_answer(meaning, facts, said, rng)}, because it {_reason(role, values, rng)}")
    instruction = sentence(plan.format(**values))
    if not meaning.picks(facts, target):
        return "no_unique_cue"
    if names_category(instruction, name):
        return "names_category"
    return Question(subtask, instruction, answer, meaning)


def _some(facts: TileFacts, category: int) -> str:
    """How many there are, where nobody would count otherwise."""
    members = facts.members(category)
    sure = (Counted(len(members)).truth(facts, members) == 1).all()
    return NUMBERS[len(members)] if sure else "some"


def _answer(meaning: Meaning, facts: TileFacts, said: Said, rng: np.random.Generator) -> str:
    if said.number is None:
        return the(facts.noun(meaning.category), said, rng)
    return counted(meaning, facts, said, rng)


def _reason(role: Role, values: dict[str, str], rng: np.random.Generator) -> str:
    """Another role than the question's, so that the explanation adds something."""
    return pick(rng, tuple(r for r in role.roles if r != values["role"]))
