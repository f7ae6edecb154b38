"""Which edition of this package builds: a hash of every file that has a say in a store's bytes.

Configuration alone does not tell sentence plans, roles, prompts or rules of one version from another's. With
their hash beside it, a build that was begun with other texts is refused instead of going on with a mixture.
"""

import hashlib
from functools import cache
from pathlib import Path

_ROOT = Path(__file__).parents[2]
#: What only shows, checks or moves. All other files count, also those that will be added.
_NO_SAY = frozenset(
    {
        "edition.py",
        "preview.py",
        "progress.py",
        "runner.py",
        "state.py",
    }
)
#: Packages beside this one that decide what files mean.
_READERS = ("labels", "pictures", "triplets")
#: Single files elsewhere with a say: forms of masks, records and shards, sentences of prompts, readers of
#: tables and annotations.
_FILES = (
    "pipelines/config/building.py",
    "pipelines/store/record.py",
    "pipelines/store/segmentation.py",
    "pipelines/store/writer.py",
    "pipelines/storage/yaml_text.py",
    "unigeoseg/samples/prompts.py",
    "unigeoseg/tasks.py",
    "unigeoseg/samples/view.py",
    "unigeoseg/weights/pickle_file.py",
)
#: Counted elsewhere: a table by the fingerprint of its source, the endpoint's texts where there is one.
_ELSEWHERE = ("sources/tables/", "endpoint/")
#: What an endpoint is asked, shown and required to answer; how it is reached has no say.
_ASKED = ("prompts.py", "render.py", "schemas.py", "stage.py")


@cache
def edition(endpoint: bool, root: Path = _ROOT) -> str:
    """The hash.

    Args:
        endpoint: whether an endpoint writes; then its prompts count, too.
        root: the folder that holds the packages.
    """
    parts = [edition_of(root / "pipelines" / name, endpoint) for name in ("build", *_READERS)]
    parts += [hashlib.sha256((root / name).read_bytes()).hexdigest() for name in _FILES]
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
