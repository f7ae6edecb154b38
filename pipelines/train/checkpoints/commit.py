"""What rank 0 does with a checkpoint whose shards are written: makes it count, and removes old ones."""

import json
import os
from pathlib import Path
from typing import Any

from pipelines.config import CheckpointConfig
from pipelines.runs.folder import RunFolder
from pipelines.runs.manifest import (
    COMMITTED,
    MANIFEST,
    STATE,
    all_steps,
    checkpoint_name,
    committed_steps,
    describe,
    read_checkpoint,
)
from pipelines.train.engine.shards import LAYOUT, layout_of


def commit(
    run: RunFolder,
    name: str,
    state: dict[str, Any],
    parts: list[tuple[str, dict[str, Any], dict[str, Any]]],
    tied: dict[str, str],
) -> None:
    """Writes index, state and manifest, and last the mark that makes the checkpoint count.

    Args:
        run: where.
        name: the checkpoint's folder inside the run.
        state: content of ``state.json``.
        parts: of every rank, its file, the manifest's entry of it, and the pieces in it.
        tied: other names of parameters in the model.
    """
    folder = run.local(f"{name}/{STATE}").parent
    layout = layout_of({file: pieces for file, _, pieces in parts}, tied)
    _write(folder / LAYOUT, json.dumps(layout))
    _write(folder / STATE, json.dumps(state, indent=2, sort_keys=True))
    files = {file: entry for file, entry, _ in parts} | describe(folder, [LAYOUT, STATE])
    _write(folder / MANIFEST, json.dumps({"files": files}, indent=2))
    run.publish(*(f"{name}/{file}" for file in (LAYOUT, STATE, MANIFEST)))
    _write(folder / COMMITTED, f"{state['step']}\n")
    run.publish(f"{name}/{COMMITTED}")


def clear(run: RunFolder, name: str) -> None:
    """Removes what an interrupted save left; the mark first, so that no half is ever taken for whole."""
    root = f"{run.root}/{name}"
    run.fs.invalidate_cache()
    if run.fs.exists(f"{root}/{COMMITTED}"):
        run.fs.rm_file(f"{root}/{COMMITTED}")
    if run.fs.exists(root):
        run.fs.rm(root, recursive=True)


def prune(run: RunFolder, settings: CheckpointConfig, best: int | None = None) -> None:
    """Removes checkpoints that are neither among the last ``keep`` nor among the best ``best_kept``.

    Unfinished ones before the newest go as well.

    Args:
        run: where.
        settings: what stays.
        best: step of the checkpoint that the run holds for the best, whatever others there are.
    """
    committed = committed_steps(run)
    kept = {*committed[-settings.keep :], *_best(run, committed, settings)}
    if settings.best_kept and best is not None:
        kept.add(best)
    newest = committed[-1] if committed else 0
    for step in all_steps(run):
        if step not in kept and step < newest:
            clear(run, checkpoint_name(step))


def _best(run: RunFolder, steps: list[int], settings: CheckpointConfig) -> list[int]:
    if not settings.best_kept:
        return []
    sign = -1 if settings.more_is_better else 1
    values = {}
    for step in steps:
        value = read_checkpoint(run, step).state.get("metrics", {}).get(settings.best_by)
        if value is not None:
            values[step] = sign * value
    return sorted(values, key=lambda step: (values[step], step))[: settings.best_kept]


def _write(path: Path, text: str) -> None:
    partial = path.with_suffix(path.suffix + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
