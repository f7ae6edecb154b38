"""Writing and loading checkpoints with all ranks.

Order of a save: every rank writes (and, for a remote run, uploads) its shards; rank 0 writes ``state.json``,
then ``manifest.json`` with the sizes and checksums that all ranks report, and last ``COMMITTED``. Ray Train's
own registration is not used: reports shortly before a crash are lost there, while the mark in storage is not.
"""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from pipelines.train.engine import Engine
from pipelines.train.manifest import (
    COMMITTED,
    MANIFEST,
    STATE,
    Checkpoint,
    all_steps,
    checkpoint_name,
    committed_steps,
    describe,
    newest_checkpoint,
)
from pipelines.train.run_folder import CHECKPOINTS, RunFolder

#: DeepSpeed's file names carry the rank that wrote them; files without one are rank 0's.
_RANK = re.compile(r"zero_pp_rank_(\d+)_")


def save_checkpoint(engine: Engine, run: RunFolder, state: dict[str, Any], keep: int) -> str:
    """Writes the checkpoint after ``state["step"]`` steps and removes old ones; a collective call.

    Returns:
        Its folder inside the run.
    """
    name = checkpoint_name(int(state["step"]))
    folder = run.local(f"{name}/{STATE}").parent
    if engine.rank == 0:
        _clear(run, name)
    engine.barrier()
    folder.mkdir(parents=True, exist_ok=True)
    engine.save(run.base / CHECKPOINTS, folder.name)
    own = _own_files(folder, engine.rank)
    if engine.rank == 0:
        _write(folder / STATE, json.dumps(state, indent=2, sort_keys=True))
        own.append(STATE)
    entries = describe(folder, own)
    for file in own:
        run.publish(f"{name}/{file}")
    gathered = engine.gather(entries)
    if engine.rank == 0:
        files = {file: entry for part in gathered for file, entry in sorted(part.items())}
        _write(folder / MANIFEST, json.dumps({"files": files}, indent=2))
        run.publish(f"{name}/{MANIFEST}")
        _write(folder / COMMITTED, f"{state['step']}\n")
        run.publish(f"{name}/{COMMITTED}")
        _prune(run, keep)
    engine.barrier()
    if run.remote:
        shutil.rmtree(folder, ignore_errors=True)
    return name


def find_checkpoint(engine: Engine, run: RunFolder) -> Checkpoint | None:
    """The newest whole checkpoint, the same on every rank (rank 0 reads storage and tells)."""
    found = newest_checkpoint(run) if engine.rank == 0 else None
    answer: Checkpoint | None = engine.gather(found)[0]
    return answer


def load_checkpoint(engine: Engine, run: RunFolder, checkpoint: Checkpoint) -> None:
    """Restores weights and optimizer; a collective call."""
    folder = run.base / checkpoint.name
    if run.remote:
        _download(run, checkpoint.name, engine.rank)
    engine.load(folder.parent, folder.name)
    engine.barrier()
    if run.remote:
        shutil.rmtree(folder, ignore_errors=True)


def _download(run: RunFolder, name: str, rank: int) -> None:
    for file in run.fs.find(f"{run.root}/{name}"):
        short = str(file).rsplit("/", 1)[-1]
        match = _RANK.search(short)
        # DeepSpeed asks for the other ranks' files by name only; it reads its own.
        if match is None or int(match[1]) == rank:
            run.fetch(f"{name}/{short}")


def _own_files(folder: Path, rank: int) -> list[str]:
    own = []
    for path in sorted(folder.iterdir()):
        match = _RANK.search(path.name)
        if path.is_file() and (int(match[1]) if match else 0) == rank:
            own.append(path.name)
    return own


def _clear(run: RunFolder, name: str) -> None:
    """Removes what an interrupted save left; the mark first, so that no half is ever taken for whole."""
    root = f"{run.root}/{name}"
    if run.fs.exists(f"{root}/{COMMITTED}"):
        run.fs.rm_file(f"{root}/{COMMITTED}")
    if run.fs.exists(root):
        run.fs.rm(root, recursive=True)


def _prune(run: RunFolder, keep: int) -> None:
    committed = committed_steps(run)
    kept = set(committed[-keep:])
    newest = committed[-1] if committed else 0
    for step in all_steps(run):
        if step not in kept and step < newest:
            _clear(run, checkpoint_name(step))


def _write(path: Path, text: str) -> None:
    partial = path.with_suffix(path.suffix + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
