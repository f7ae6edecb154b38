"""Finding the newest whole checkpoint with all ranks, and loading it.

Shards hold pieces of parameters by name and place, so a run goes on with another world size or ZeRO stage
from the same files: nothing is converted, no extra disk is taken, and each rank reads the pieces that it
holds (with weights and two moments 12 bytes for each trained parameter, all ranks together). A remote run's
shards pass through the machine's temporary folder: each is read once, when its checksum is taken, by the rank
that wrote it, and once more by ranks of another number that hold a part of it. The log says how long it took;
`unigeoseg bench checkpoint` measures it as ``restore_seconds``.
"""

import json
import shutil
from collections.abc import Sequence
from functools import partial

import torch.distributed as dist

from pipelines.runs.folder import RunFolder
from pipelines.runs.manifest import (
    Checkpoint,
    checkpoint_name,
    committed_steps,
    find_problem,
    read_checkpoint,
    warn_damaged,
)
from pipelines.train.engine.distributed import gathered
from pipelines.train.engine.engine import Engine
from pipelines.train.engine.pieces import Piece
from pipelines.train.engine.shards import LAYOUT, ShardReader
from unigeoseg.errors import UserError


def find_checkpoint(run: RunFolder) -> Checkpoint | None:
    """The newest whole checkpoint, the same on every rank, which share the reading of the shards."""
    rank, world = dist.get_rank(), dist.get_world_size()
    steps: list[int] = gathered(committed_steps(run) if rank == 0 else [])[0]
    for step in reversed(steps):
        name = checkpoint_name(step)
        problem = next(filter(None, gathered(find_problem(run, name, rank, world, keep=True))), None)
        if problem is None:
            found: Checkpoint = gathered(read_checkpoint(run, step) if rank == 0 else None)[0]
            return found
        if run.remote:
            shutil.rmtree(run.base / name, ignore_errors=True)
        if rank == 0:
            warn_damaged(run, step, problem)
    return None


def load_checkpoint(engine: Engine, run: RunFolder, checkpoint: Checkpoint) -> None:
    """Restores weights and optimizer, whatever world size and stage wrote them; a collective call.

    Raises:
        UserError: the checkpoint is of another model, or of a version that wrote them otherwise.
    """
    root, folder = f"{run.root}/{checkpoint.name}", run.base / checkpoint.name
    if not run.fs.exists(f"{root}/{LAYOUT}"):
        raise UserError(
            f"{run.path}/{checkpoint.name} was written by an earlier version that this one cannot resume; "
            "start a new run from its export with --set init.model=DIR"
        )
    reader = ShardReader(folder, json.loads(run.patience(lambda: run.fs.cat_file(f"{root}/{LAYOUT}"))))
    check_shapes(engine.trained_shapes(), reader.shapes, f"{run.path}/{checkpoint.name}")
    pieces = engine.held_pieces()
    _bring(run, checkpoint.name, reader, pieces)
    engine.restore(reader, pieces)
    engine.barrier()
    if run.remote:
        shutil.rmtree(folder, ignore_errors=True)


def _bring(run: RunFolder, name: str, reader: ShardReader, pieces: Sequence[Piece]) -> None:
    """Brings the shards that hold some pieces into the mirror of a remote run, but those that are there."""
    if not run.remote:
        return
    for file in sorted(reader.files_for((p.name, p.start, p.count) for p in pieces)):
        if not (run.base / name / file).is_file():  # else it was kept when its checksum was taken
            run.patience(partial(run.fetch, f"{name}/{file}"))


def load_moments(engine: Engine, path: str) -> str:
    """Takes the optimizer's state of another run's newest checkpoint; a collective call.

    Args:
        engine: at its start.
        path: of the run.

    Returns:
        What was taken, in words.

    Raises:
        UserError: there is no whole checkpoint, or it was written with another optimizer.
    """
    run = RunFolder(path)
    try:
        found = find_checkpoint(run)
        if found is None:
            raise UserError(f"init.optimizer={path} has no whole checkpoint; give a run that has one")
        folder = run.base / found.name
        reader = ShardReader(folder, json.loads(run.fs.cat_file(f"{run.root}/{found.name}/{LAYOUT}")))
        _bring(run, found.name, reader, engine.held_pieces())
        taken = engine.restore_moments(reader)
        engine.barrier()
    finally:
        run.close()
    return (
        f"optimizer state of {taken} of {len(engine.trained_shapes())} parameters taken from {path} "
        f"({found.name})"
    )


def check_shapes(model: dict[str, tuple[int, ...]], saved: dict[str, tuple[int, ...]], where: str) -> None:
    """Refuses a checkpoint of another model.

    Raises:
        UserError: names the first parameters that differ.
    """
    differing = [
        f"{name} ({saved.get(name, 'absent')} in the checkpoint, {model.get(name, 'absent')} in the model)"
        for name in sorted(model.keys() | saved.keys())
        if model.get(name) != saved.get(name)
    ]
    if differing:
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        raise UserError(
            f"{where} is of another model: {'; '.join(differing[:3])}{more}; give the configuration that it "
            "was written with"
        )
