"""Which edition of this package builds: a hash of every file of it that has a say in a store's bytes.

Configuration alone does not tell sentence plans, roles, prompts or rules of one version from another's. With
their hash beside it, a build that was begun with other texts is refused instead of going on with a mixture.
"""

import hashlib
from functools import cache
from pathlib import Path

#: What only shows, checks or moves. All other files count, also those that will be added.
_NO_SAY = frozenset(
    {
        "edition.py",
        "lint.py",
        "lint_pictures.py",
        "lint_shard.py",
        "lint_text.py",
        "preview.py",
        "progress.py",
        "report.py",
        "runner.py",
        "state.py",
        "table10.py",
        "table10.yaml",
    }
)
#: Packages beside this one that decide what files mean.
_READERS = ("pictures", "triplets")
#: Counted elsewhere: a table by the fingerprint of its source, the endpoint's texts where there is one.
_ELSEWHERE = ("sources/tables/", "endpoint/")
#: What an endpoint is asked, shown and required to answer; how it is reached has no say.
_ASKED = ("prompts.py", "render.py", "schemas.py", "stage.py")


def edition(endpoint: bool) -> str:
    """The hash.

    Args:
        endpoint: whether an endpoint writes; then its prompts count, too.
    """
    here = Path(__file__).parent
    parts = [edition_of(here, endpoint)] + [edition_of(here.parent / name, endpoint) for name in _READERS]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


@cache
def edition_of(package: Path, endpoint: bool) -> str:
    """The hash of a folder with the files of this package."""
    found = hashlib.sha256()
    for file in sorted(f for f in package.rglob("*") if f.suffix in (".py", ".yaml")):
        name = file.relative_to(package).as_posix()
        if name in _NO_SAY or (name.startswith(_ELSEWHERE) and not _is_asked(name, endpoint)):
            continue
        found.update(f"{name}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return found.hexdigest()


def _is_asked(name: str, endpoint: bool) -> bool:
    return endpoint and name in {f"endpoint/{file}" for file in _ASKED}
