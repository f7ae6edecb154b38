"""What already stands where a store shall be written: nothing, a store, an unfinished build, other files."""

import json

from pipelines.build.manifest import FOLDER
from pipelines.storage import is_remote, open_filesystem
from pipelines.store.index import no_access
from pipelines.store.writer import atomic_write
from unigeoseg.errors import UserError
from unigeoseg.tasks import TASKS

#: Everything that a build makes; nothing else is ever removed.
_OURS = {"dataset.json", "index.parquet", "shards", FOLDER, *(f"preview-{task}.png" for task in TASKS)}


def prepare(store: str, plan: dict[str, str | int], force: bool) -> bool:
    """Makes room for a build, or lets an interrupted one go on.

    Returns:
        Whether only the intermediate files are left to be removed: the build was killed at its very end.

    Raises:
        UserError: a finished store without ``force``, another build's remains, foreign files, no permission.
    """
    entries = _entries(store)
    foreign = sorted(e for e in entries if e not in _OURS)
    if foreign:
        raise UserError(f"{store} holds other files ({', '.join(foreign[:3])}): name an empty or new folder")
    if "dataset.json" in entries and not force:
        if FOLDER in entries and _plan_of(store) in (plan, None):
            return True
        raise UserError(
            f"{store} already holds a finished store: use another --out, or --force to replace it"
        )
    if force:
        _clear(store, entries)
    elif entries == {FOLDER} and (_plan_of(store) is None or _other_and_nothing_done(store, plan)):
        # Killed before it wrote its plan or while it was being removed, or refused: nothing would be lost.
        _clear(store, entries)
    elif entries:
        _check_resumable(store, plan)
    _write_plan(store, plan)
    return False


def _entries(store: str) -> set[str]:
    filesystem, root = open_filesystem(store)
    filesystem.invalidate_cache()
    try:
        return {str(p).rstrip("/").rpartition("/")[2] for p in filesystem.ls(root, detail=False)}
    except FileNotFoundError:
        return set()
    except NotADirectoryError as error:
        raise UserError(f"{store} is a file: name a folder for the store") from error
    except Exception as error:  # object stores raise their own kinds
        raise UserError(no_access(store, error)) from error


def _other_and_nothing_done(store: str, plan: dict[str, str | int]) -> bool:
    """Whether a build with other settings has listed its images and finished none of its work."""
    if _plan_of(store) == plan:
        return False
    filesystem, root = open_filesystem(store)
    names = [str(path).rpartition("/")[2] for path in filesystem.ls(f"{root}/{FOLDER}", detail=False)]
    return not any(name.startswith("part-") and name.endswith(".json") for name in names)


def _check_resumable(store: str, plan: dict[str, str | int]) -> None:
    found = _plan_of(store)
    if found is None:
        raise UserError(
            f"{store} holds part of a store and no record of its build: use --force to replace it"
        )
    if found and found.get("edition") != plan.get("edition"):
        raise UserError(
            f"{store} holds an unfinished build that was begun with another version of the rules and texts "
            "of this program: go on with that version, or use --force to start over"
        )
    if found != plan:
        raise UserError(
            f"{store} holds an unfinished build of another source or configuration: use the same settings "
            "to go on with it, or --force to start over"
        )


def _plan_of(store: str) -> dict[str, str | int] | None:
    """The plan of an unfinished build; ``None`` without one, empty if it cannot be read."""
    filesystem, root = open_filesystem(store)
    try:
        found: dict[str, str | int] = json.loads(filesystem.cat_file(f"{root}/{FOLDER}/plan.json"))
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return found


def _clear(store: str, entries: set[str]) -> None:
    filesystem, root = open_filesystem(store)
    for name in sorted(entries, key=lambda e: e != "dataset.json"):  # first of all it stops being finished
        filesystem.rm(f"{root}/{name}", recursive=True)


def _write_plan(store: str, plan: dict[str, str | int]) -> None:
    filesystem, root = open_filesystem(store)
    try:
        with atomic_write(filesystem, f"{root}/{FOLDER}/plan.json", is_remote(store)) as handle:
            handle.write(json.dumps(plan, sort_keys=True).encode())
    except PermissionError as error:
        raise UserError(
            f"no permission to write to {store}: choose another --out or change its rights"
        ) from error
    except Exception as error:  # object stores raise their own kinds
        raise UserError(f"cannot write to {store}: {error}; choose another --out") from error


def forget_parts(store: str) -> None:
    """Removes the intermediate files of a finished build, its plan last."""
    filesystem, root = open_filesystem(store)
    filesystem.invalidate_cache()  # other processes wrote there
    folder = f"{root}/{FOLDER}"
    names = [str(p) for p in filesystem.ls(folder, detail=False)]
    others = [name for name in names if not name.endswith("/plan.json")]
    if others:
        filesystem.rm(others)
    filesystem.rm(folder, recursive=True)
