"""What a checkpoint holds, and whether it is whole: ``manifest.json`` and ``COMMITTED``."""

import hashlib
import json
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pipelines.train.run_folder import CHECKPOINTS, RunFolder

logger = logging.getLogger(__name__)
STATE, MANIFEST, COMMITTED = "state.json", "manifest.json", "COMMITTED"
_NAME = re.compile(r"step-(\d{8})$")
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


def newest_checkpoint(run: RunFolder) -> Checkpoint | None:
    """The newest committed checkpoint whose files agree with its manifest.

    A damaged one is passed over for the one before, with a warning that says what is wrong with it.
    """
    for step in reversed(committed_steps(run)):
        name = checkpoint_name(step)
        try:
            problem = verify(run, name)
            if problem is None:
                state = json.loads(run.fs.cat_file(f"{run.root}/{name}/{STATE}"))
                return Checkpoint(step, name, state)
        except (OSError, ValueError, KeyError) as error:
            problem = f"{type(error).__name__}: {error}"
        logger.warning("checkpoint %s/%s is damaged (%s); using the one before", run.path, name, problem)
    return None


def verify(run: RunFolder, name: str) -> str | None:
    """What is wrong with a checkpoint, or ``None``. Reads every byte of it."""
    root = f"{run.root}/{name}"
    manifest = json.loads(run.fs.cat_file(f"{root}/{MANIFEST}"))
    for file, entry in manifest["files"].items():
        if not run.fs.exists(f"{root}/{file}"):
            return f"{file} is missing"
        size = run.fs.size(f"{root}/{file}")
        if size != entry["bytes"]:
            return f"{file} has {size} bytes, the manifest says {entry['bytes']}"
        with run.fs.open(f"{root}/{file}", "rb") as stream:
            if _digest(stream) != entry["sha256"]:
                return f"the checksum of {file} differs from the manifest's"
    return None


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


def _digest(stream: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while block := stream.read(_BLOCK):
        digest.update(block)
    return digest.hexdigest()
