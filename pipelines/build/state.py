"""What already stands where a store shall be written: nothing, a store, an unfinished build, other files."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from pipelines.build.manifest import FOLDER
from pipelines.storage.filesystem import is_remote, open_filesystem
from pipelines.storage.lease import LEASE, LeasedFolder, LeaseLostError, check_held, held
from pipelines.store.index import no_access
from pipelines.store.writer import atomic_write
from unigeoseg.errors import UserError
from unigeoseg.tasks import TASKS

#: A build without a sign of life for so long has given its place up.
_LEASE_SECONDS = 60.0
#: What may be done with what lies there.
_TIDY, _CLEAR, _GO_ON = "tidy up", "clear", "go on"
#: Everything that a build makes; nothing else is ever removed.
_OURS = {"dataset.json", "index.parquet", "shards", FOLDER, *(f"preview-{task}.png" for task in TASKS)}


def prepare(store: str, plan: dict[str, str | int], force: bool) -> bool:
    """Makes room for a build, or lets an interrupted one go on.

    Returns:
        Whether only the intermediate files are left to be removed: the build was killed at its very end.

    Raises:
        UserError: a finished store without ``force``, another build's remains, foreign files, no permission.
    """
    done = _decide(store, plan, force)
    if done == _TIDY:
        return True
    if done == _CLEAR:
        _clear(store, _entries(store))
    _write_plan(store, plan)
    return False


@contextmanager
def hold(store: str, plan: dict[str, str | int], force: bool) -> Iterator[Callable[[], None]]:
    """Holds the place of a store against other builds and merges, for as long as the block lasts.

    Nothing is written where :func:`prepare` would refuse.

    Yields:
        What raises ``UserError`` once another job has taken the place over.

    Raises:
        UserError: another job is at work there; and as :func:`prepare`.
    """
    _decide(store, plan, force)
    filesystem, root = open_filesystem(store)
    place = LeasedFolder(filesystem, root, store, is_remote(store))
    with ExitStack() as stack:
        with _writable(store):
            if not place.remote:
                filesystem.makedirs(root, exist_ok=True)
            lease = stack.enter_context(held(place, _LEASE_SECONDS, "name another --out"))

        def check() -> None:
            try:
                check_held(place, lease.token)
            except LeaseLostError as error:
                raise UserError(f"{error}: what is finished stays; see who works there") from error

        yield check


def _decide(store: str, plan: dict[str, str | int], force: bool) -> str:
    """What is to be done with what lies there; nothing is written."""
    entries = _entries(store)
    foreign = sorted(e for e in entries if e not in _OURS)
    if foreign:
        raise UserError(f"{store} holds other files ({', '.join(foreign[:3])}): name an empty or new folder")
    if "dataset.json" in entries and not force:
        if FOLDER in entries and _plan_of(store) in (plan, None):
            return _TIDY
        raise UserError(
            f"{store} already holds a finished store: use another --out, or --force to replace it"
        )
    if force:
        return _CLEAR
    if entries == {FOLDER} and (_plan_of(store) is None or _other_and_nothing_done(store, plan)):
        # Killed before it wrote its plan or while it was being removed, or refused: nothing would be lost.
        return _CLEAR
    if entries:
        _check_resumable(store, plan)
    return _GO_ON


def _entries(store: str) -> set[str]:
    filesystem, root = open_filesystem(store)
    filesystem.invalidate_cache()
    try:
        names = {str(p).rstrip("/").rpartition("/")[2] for p in filesystem.ls(root, detail=False)}
        return {name for name in names if not name.startswith(LEASE)}
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
    with (
        _writable(store),
        atomic_write(filesystem, f"{root}/{FOLDER}/plan.json", is_remote(store)) as handle,
    ):
        handle.write(json.dumps(plan, sort_keys=True).encode())


@contextmanager
def _writable(store: str) -> Iterator[None]:
    """What the first writing in a place may raise, in words."""
    try:
        yield
    except UserError:
        raise
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
