"""Reasoning questions: what a thing is for, never what it is called, and cues that set it apart."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import yaml

from pipelines.build.instruct.candidates import CandidateWriter
from pipelines.build.instruct.facts import TileFacts
from pipelines.build.instruct.meaning import Meaning
from pipelines.build.instruct.referring import say
from pipelines.build.instruct.words import Wording
from pipelines.build.taxonomy import taxonomy

#: Most regions of a category for a context question.
_MOST = 3
_ATTRIBUTE = (
    "Which {head} in this image {role}?",
    "Find the {head} that {role}.",
    "Where is the {head} that {role}?",
    "Point out the {head} which {role}.",
    "Something in this scene {role}. Which {head} is it?",
    "Judging by its use, which {head} {role}?",
)
_ATTRIBUTE_NEED = (
    "If someone wanted to {need}, what in this image would help?",
    "Someone plans to {need}. Which {head} would they choose?",
    "Which {head} would serve a person who wants to {need}?",
    "What here would you need in order to {need}?",
)
_CONTEXT_AFTER = (
    "Among the {heads} that {role}, which one is {after}?",
    "Several {heads} here {role}; find the one {after}.",
    "Which of the {heads} that {role} is the one {after}?",
    "Of all {heads} that {role}, mark the one {after}.",
    "To {need}, someone picks the option {after}. Which {head} is meant?",
)
_CONTEXT_BEFORE = (
    "Among the {heads} that {role}, which is the {before} one?",
    "Several {heads} here {role}; find the {before} one.",
    "Of all {heads} that {role}, mark the {before} one.",
    "To {need}, someone picks the {before} option. Which {head} is meant?",
)
_CONTEXT_WITH = (
    "Among the {heads} that {role}, find the one {after}.",
    "Several {heads} here {role}; find the one {after}.",
    "Of all {heads} that {role}, mark the one {after}.",
)
_CONTEXT_BOTH = (
    "Among the {heads} that {role}, which is the {before} one {after}?",
    "Of all {heads} that {role}, mark the {before} one {after}.",
)


@dataclass(frozen=True)
class Role:
    """What is known of a category; see ``roles.yaml``."""

    head: str
    heads: str
    roles: tuple[str, ...]
    needs: tuple[str, ...]
    avoid: tuple[str, ...]
    conflicts: frozenset[str]


@dataclass(frozen=True)
class Question:
    """A reasoning instruction, its kind, the explanation, and the meaning of its cue (if any)."""

    subtask: str
    instruction: str
    answer: str
    meaning: Meaning


@cache
def roles() -> dict[str, Role]:
    """The table of roles by category name."""
    table = yaml.safe_load(Path(__file__).with_name("roles.yaml").read_text(encoding="utf-8"))
    return {
        name: Role(
            row["head"],
            row["heads"],
            tuple(row["roles"]),
            tuple(row["needs"]),
            tuple(row["avoid"]),
            frozenset(row["conflicts"]),
        )
        for name, row in table.items()
    }


def names_category(text: str, name: str, avoid: tuple[str, ...]) -> bool:
    """Whether a text gives a category away: its name anywhere, or a word that begins with a telling stem."""
    lowered = text.lower()
    return name.lower() in lowered or any(re.search(rf"\b{stem}", lowered) for stem in avoid)


def ask(writer: CandidateWriter, facts: TileFacts, target: int, rng: np.random.Generator) -> Question | str:
    """A question for region ``target``, or the reason why there is none."""
    category = int(facts.categories[target])
    name, members = taxonomy()[category].name, facts.members(category)
    role = roles().get(name)
    if role is None:
        return "no_role_known"
    present = {taxonomy()[int(c)].name for c in np.unique(facts.categories)} - {name}
    if present & role.conflicts:
        return "role_not_unique"
    if len(members) > _MOST:
        return "too_many_of_category"
    clause, need = _one(rng, role.roles), _one(rng, role.needs)
    values = {"head": role.head, "heads": role.heads, "role": clause, "need": need}
    if len(members) == 1:
        template = _one(rng, _ATTRIBUTE_NEED if rng.random() < 0.4 else _ATTRIBUTE)
        meaning, subtask = Meaning(category), "attribute"
        answer = f"The {facts.noun(category)}, because it {clause}."
    else:
        chosen = writer.choose(target, rng)
        if chosen is None:
            return "no_unique_cue"
        meaning, subtask = chosen, "context"
        cue = say(meaning, facts, rng)
        values |= {"before": cue.before, "after": cue.after}
        template = _one(rng, _context_plans(cue))
        which = " ".join(w for w in (cue.before, facts.noun(category), cue.after) if w)
        answer = f"The {which}, because it {clause}."
    instruction = template.format(**values)
    if not meaning.picks(facts, target):
        return "no_unique_cue"
    if names_category(instruction, name, role.avoid):
        return "names_category"
    return Question(subtask, instruction, answer, meaning)


def _context_plans(cue: Wording) -> tuple[str, ...]:
    """Sentence plans into which the words of a cue fit."""
    if cue.before:
        return _CONTEXT_BOTH if cue.after else _CONTEXT_BEFORE
    return _CONTEXT_WITH if cue.after.startswith("with ") else _CONTEXT_AFTER


def _one(rng: np.random.Generator, choices: tuple[str, ...]) -> str:
    return choices[int(rng.integers(len(choices)))]
