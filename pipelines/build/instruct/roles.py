"""The table of roles (``roles.yaml``), and whether a text gives a category away."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from pipelines.labels.taxonomy import taxonomy


@dataclass(frozen=True)
class Role:
    """What is known of a category; the fields are those of ``roles.yaml``."""

    head: str
    heads: str
    who: str
    roles: tuple[str, ...]
    looks: tuple[str, ...]
    needs: tuple[str, ...]
    avoid: tuple[str, ...]
    kin: frozenset[str]


@cache
def roles() -> dict[str, Role]:
    """What is known of each category, by name."""
    table = yaml.safe_load(Path(__file__).with_name("roles.yaml").read_text(encoding="utf-8"))
    return {
        name: Role(
            row["head"],
            row["heads"],
            row["who"],
            tuple(row["roles"]),
            tuple(row["looks"]),
            tuple(row["needs"]),
            tuple(row["avoid"]),
            frozenset(row["kin"]),
        )
        for name, row in table.items()
    }


def names_category(text: str, name: str) -> bool:
    """Whether a text gives a category away: by its name or noun, or by the beginning of a telling word."""
    return bool(_telling(name).search(text))


@cache
def _telling(name: str) -> re.Pattern[str]:
    nouns = {c.noun for c in taxonomy().values() if c.name == name}
    whole = "|".join(re.escape(word) for word in sorted({name, *nouns}))
    stems = "|".join(re.escape(stem) for stem in roles()[name].avoid)
    return re.compile(rf"{whole}|\b(?:{stems})", re.IGNORECASE)


@cache
def telling_anchors(name: str) -> frozenset[int]:
    """Categories whose nouns would give ``name`` away."""
    return frozenset(c.id for c in taxonomy().values() if names_category(c.noun, name))


def may_be_confused(name: str, present: set[str]) -> bool:
    """Whether the same might be said of another category that is in the tile."""
    return any(roles()[name].kin & roles()[other].kin for other in present if other != name)
