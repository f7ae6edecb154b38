"""What a checkpoint holds, and whether it is whole: ``manifest.json`` and ``COMMITTED``."""

import hashlib
import json
import logging
import re
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

from pipelines.runs.folder import CHECKPOINTS, RunFolder

logger = logging.getLogger(__name__)
STATE, MANIFEST, COMMITTED = "state.json", "manifest.json", "COMMITTED"
_NAME = re.compile(r"step-(\d{8})$")
_SHARD = re.compile(r"shard-(\d+)-of-\d+\.safetensors")
_BLOCK = 1 << 22


@dataclass(frozen=True)
class Checkpoint:
    """A committed checkpoint.

    Attributes:
        step: optimizer steps done when it was written.
        name: its folder inside the run, ``checkpoints/step-00000100``.
        state: content of ``state.json``.
    """

    step: int
    name: str
    state: dict[str, Any]


def checkpoint_name(step: int) -> str:
    """Folder of the checkpoint after ``step`` steps, inside the run."""
    return f"{CHECKPOINTS}/step-{step:08d}"


def describe(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of files in ``folder``, as the manifest keeps them."""
    content = {}
    for name in names:
        with (folder / name).open("rb") as file:
            content[name] = {"bytes": (folder / name).stat().st_size, "sha256": _digest(file)}
    return content


def committed_steps(run: RunFolder) -> list[int]:
    """Steps of the checkpoints with a ``COMMITTED`` mark, ascending."""
    return [step for step, whole in _steps(run) if whole]


def all_steps(run: RunFolder) -> list[int]:
    """Steps of all checkpoint folders, unfinished ones too, ascending."""
    return [step for step, _ in _steps(run)]


def newest_checkpoint(run: RunFolder, checksums: bool = True) -> Checkpoint | None:
    """The newest committed checkpoint whose files agree with its manifest.

    A damaged one is passed over for the one before, with a warning that says what is wrong with it.

    Args:
        run: where.
        checksums: ``False`` compares sizes alone, without reading the shards.
    """
    for step in reversed(committed_steps(run)):
        problem = find_problem(run, checkpoint_name(step), checksums=checksums)
        if problem is None:
            return read_checkpoint(run, step)
        warn_damaged(run, step, problem)
    return None


def read_checkpoint(run: RunFolder, step: int) -> Checkpoint:
    """A checkpoint by its step."""
    name = checkpoint_name(step)
    return Checkpoint(step, name, json.loads(run.fs.cat_file(f"{run.root}/{name}/{STATE}")))


def warn_damaged(run: RunFolder, step: int, problem: str) -> None:
    """Says that a checkpoint is passed over."""
    name = checkpoint_name(step)
    logger.warning("checkpoint %s/%s is damaged (%s); using the one before", run.path, name, problem)


def find_problem(
    run: RunFolder, name: str, part: int = 0, parts: int = 1, checksums: bool = True, keep: bool = False
) -> str | None:
    """As :func:`verify`, with what stops the check itself taken for the problem.

    Raises:
        OSError: an object store stays out of reach.
    """
    try:
        return verify(run, name, part, parts, checksums, keep)
    except (OSError, ValueError, KeyError, TypeError) as error:
        if run.remote and isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
            raise  # storage is out of reach: that says nothing about the checkpoint
        return f"{type(error).__name__}: {error}"


def verify(
    run: RunFolder, name: str, part: int = 0, parts: int = 1, checksums: bool = True, keep: bool = False
) -> str | None:
    """What is wrong with a checkpoint, or ``None``.

    Args:
        run: where.
        name: its folder inside the run.
        part: which share of the files this call reads, when several processes read together: of ranks that
            go on in the same number, each reads the shard that it wrote.
        parts: number of shares.
        checksums: ``False`` compares sizes alone.
        keep: what is read of a remote run stays in its mirror, to be loaded from there.
    """
    root = f"{run.root}/{name}"
    manifest = json.loads(run.fs.cat_file(f"{root}/{MANIFEST}"))
    for file, entry in manifest["files"].items():
        if _reader(file) % parts != part:
            continue
        if not run.fs.exists(f"{root}/{file}"):
            return f"{file} is missing"
        size = run.fs.size(f"{root}/{file}")
        if size != entry["bytes"]:
            return f"{file} has {size} bytes, the manifest says {entry['bytes']}"
        kept = run.local(f"{name}/{file}") if keep and run.remote else None
        if checksums and run.patiently(partial(_digest_at, run, f"{root}/{file}", kept)) != entry["sha256"]:
            return f"the checksum of {file} differs from the manifest's"
    return None


def _reader(file: str) -> int:
    """The rank that reads a file: of a shard, the one that wrote it."""
    shard = _SHARD.match(file)
    return int(shard[1]) if shard else 0


def _digest_at(run: RunFolder, path: str, kept: Path | None = None) -> str:
    with run.fs.open(path, "rb") as stream, kept.open("wb") if kept else nullcontext() as copy:
        return _digest(stream, copy)


def _steps(run: RunFolder) -> list[tuple[int, bool]]:
    folder = f"{run.root}/{CHECKPOINTS}"
    run.fs.invalidate_cache()
    if not run.fs.exists(folder):
        return []
    found = []
    for entry in run.fs.ls(folder, detail=False):
        if match := _NAME.search(str(entry).rstrip("/")):
            found.append((int(match[1]), bool(run.fs.exists(f"{str(entry).rstrip('/')}/{COMMITTED}"))))
    return sorted(found)


def _digest(stream: IO[bytes], copy: IO[bytes] | None = None) -> str:
    digest = hashlib.sha256()
    while block := stream.read(_BLOCK):
        digest.update(block)
        if copy is not None:
            copy.write(block)
    return digest.hexdigest()
