"""Path patterns with named places: ``{split}/images/{name}.png``.

``{name}`` stands for one or more characters other than ``/``; ``{name:REGEX}`` for what the expression fits;
``*`` for anything within a folder or file name. A name that occurs again must have the same text.
"""

import re
from collections.abc import Mapping
from functools import lru_cache

_PLACE = re.compile(r"\{(?P<name>[a-z_]+)(?::(?P<regex>(?:[^{}]|\{[0-9,]*\})+))?\}|(?P<star>\*)")


@lru_cache(maxsize=256)
def compile_pattern(pattern: str) -> re.Pattern[str]:
    """The regular expression of a path pattern, to be matched against a whole relative path.

    Raises:
        ValueError: the pattern is malformed.
    """
    parts, end, seen = [], 0, set()
    for found in _PLACE.finditer(pattern):
        parts.append(_literal(pattern, pattern[end : found.start()]))
        end = found.end()
        if found["star"]:
            parts.append("[^/]*")
        elif found["name"] in seen:
            parts.append(f"(?P={found['name']})")
        else:
            seen.add(found["name"])
            parts.append(f"(?P<{found['name']}>{found['regex'] or '[^/]+?'})")
    parts.append(_literal(pattern, pattern[end:]))
    try:
        return re.compile("".join(parts))
    except re.error as error:
        raise ValueError(f"path pattern {pattern!r}: {error}") from error


def _literal(pattern: str, text: str) -> str:
    if "{" in text or "}" in text:
        raise ValueError(
            f"path pattern {pattern!r}: braces must read {{name}} or {{name:expression}}, lower-case names"
        )
    return re.escape(text)


def names_of(pattern: str) -> set[str]:
    """The named places of a pattern."""
    return {found["name"] for found in _PLACE.finditer(pattern) if found["name"]}


def fill(template: str, values: Mapping[str, str]) -> str:
    """A template with its places filled in; expressions inside places do not matter here."""
    return _PLACE.sub(lambda found: values[found["name"]] if found["name"] else "*", template)


def natural(text: str) -> list[tuple[int, int, str]]:
    """Sort key that puts "Tile 2" before "Tile 10"."""
    pieces = re.split(r"(\d+)", text)
    return [(0, int(p), p) if p.isdecimal() and p.isascii() else (1, 0, p) for p in pieces if p]
