"""Whether an instruction speaks of what its mask shows."""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal

from pipelines.build.instruct.roles import names_category
from pipelines.build.instruct.words import plural
from pipelines.labels.taxonomy import taxonomy
from pipelines.triplets.layouts import LAYOUTS
from unigeoseg.samples.sample import Sample
from unigeoseg.tasks import ABSENT, REASONING, REFERRING

#: Unicode categories of characters that are not seen, and those of them that text may hold.
_UNSEEN = ("Cc", "Cf", "Co", "Cn")
_BORNE = "\n\t\r\u200c\u200d\u00ad"
#: Scripts with letters that look the same.
_LOOK_ALIKE = ("LATIN", "CYRILLIC", "GREEK")

#: Who wrote a source's text: the embedded writer, a chat endpoint, or (no entry) people elsewhere.
Author = Literal["writer", "endpoint"]


def authors(card: Mapping[str, Any]) -> dict[str, Author]:
    """The author of each source's text, from a store's card; what is in doubt is left out."""
    merged = card.get("merge")
    own = {"config": card.get("config", {}), "sources": card.get("counts", {}).get("source", {})}
    parts: list[Mapping[str, Any]] = merged["stores"] if merged else [own]
    found: dict[str, Author] = {}
    for part in parts:
        config = part.get("config", {})
        if "rules" not in config:  # no store of this construction
            continue
        author: Author = "endpoint" if config.get("endpoint", {}).get("model") else "writer"
        for source in part.get("sources", ()):
            if source not in LAYOUTS:  # ready text of a benchmark
                found[source] = "endpoint" if "endpoint" in (author, found.get(source)) else "writer"
    return found


def text_faults(sample: Sample, author: Author | None, shown: frozenset[str]) -> list[str]:
    """What is wrong with the words of a record.

    A referring phrase names its category, by a noun if the embedded writer made it, else by any word of the
    table of roles. A phrase of others may also do without a name ("the thing in the corner"), or name
    what another sample of the image shows; but it never names only what no sample of the image shows. A
    reasoning question made here never names its category.

    Args:
        sample: the record.
        author: of its text.
        shown: names of the categories of all samples of its image.
    """
    if sample.category_id not in taxonomy():  # said elsewhere, or a ready sample without category
        return []
    name, text = taxonomy()[sample.category_id].name, sample.instruction
    if sample.task == REASONING and author is not None and names_category(text, name):
        return [f"names_category: the question gives {name} away"]
    if sample.task != REFERRING:
        return []
    if author == "writer":
        spoken = name in _named(text)
        return [] if spoken else [f"phrase: it names no {taxonomy()[sample.category_id].noun}"]
    if names_category(text, name) or sample.subtask == ABSENT:
        return []  # what is not there may be called anything
    named = _named(text)
    if named and not named & shown:
        others = " and ".join(sorted(named))
        return [f"phrase: it names {others}, the mask is {name}, and no sample of the image shows the former"]
    return []


def character_faults(*texts: str) -> list[str]:
    """Characters that no reader sees: controls, and marks that turn or hide text."""
    for text in texts:
        for character in text:
            if unicodedata.category(character) in _UNSEEN and character not in _BORNE:
                return [f"control_character: the text holds U+{ord(character):04X}"]
        for word in re.findall(r"\w+", text):
            found = {script for c in word if c.isalpha() and (script := _script(c)) in _LOOK_ALIKE}
            if len(found) > 1:
                return [f"mixed_script: the word {word!r} mixes {' and '.join(sorted(found))} letters"]
    return []


def script_of(text: str) -> str:
    """The script of most letters of a text, such as LATIN, CYRILLIC or CJK; empty without letters."""
    if text.isascii():
        return "LATIN" if any(c.isalpha() for c in text) else ""
    counts = Counter(_script(c) for c in text if c.isalpha())
    return counts.most_common(1)[0][0] if counts else ""


@cache
def _script(letter: str) -> str:
    """The script of a letter: the first word of its Unicode name."""
    return unicodedata.name(letter, "UNNAMED").split()[0].partition("-")[0]


def _named(text: str) -> set[str]:
    """Names of the categories whose nouns occur in a text."""
    pattern, names = _nouns()
    return {name for found in pattern.finditer(text.lower()) for name in names[found[0]]}


@cache
def _nouns() -> tuple[re.Pattern[str], dict[str, set[str]]]:
    names: dict[str, set[str]] = {}
    for category in taxonomy().values():
        for word in (category.noun, plural(category.noun), category.name):
            names.setdefault(word.lower(), set()).add(category.name)
    longest_first = sorted(names, key=lambda word: (-len(word), word))
    return re.compile(rf"\b(?:{'|'.join(map(re.escape, longest_first))})\b"), names
