"""Suffixes in another case: ``a.JPG`` where ``a.jpg`` is meant.

A name that is spelled as it is asked for is taken. Where there is none, the one file that differs in the case
of its suffix alone is taken, and told. Where several do, nobody can say which one is meant: they are refused.
"""


def folded(path: str) -> str:
    """A path with its suffix in small letters; what is equal then differs in the suffix' case at most."""
    stem, dot, suffix = path.rpartition(".")
    return f"{stem}.{suffix.lower()}" if dot and "/" not in suffix else path


def spellings(path: str, pattern: str = "") -> list[str]:
    """Other spellings of a path by its suffix: as a pattern ends, small letters, capitals."""
    stem, dot, suffix = path.rpartition(".")
    if not dot or "/" in suffix:
        return []
    wanted = pattern.rpartition(".")[2]
    ends = [end for end in (wanted, suffix.lower(), suffix.upper()) if end.lower() == suffix.lower()]
    return [f"{stem}.{end}" for end in dict.fromkeys(ends) if end != suffix]
