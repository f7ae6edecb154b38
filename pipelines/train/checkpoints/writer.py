"""Writing checkpoints beside training, with all ranks, and loading them into any world size and ZeRO stage.

Order of a save: every rank copies its pieces of weights and optimizer state to host memory (training waits
for this alone) and goes on. A thread of each rank then writes its shard and, for a remote run, uploads it;
rank 0 writes ``layout.json`` and ``state.json``, then ``manifest.json`` with the sizes and checksums that all
ranks report, and last ``COMMITTED``. The threads talk over a process group of their own. One save is under
way at a time: the next one waits for it, and that wait is reported. Ray Train's own registration is not used:
reports shortly before a crash are lost there, while the mark in storage is not.

Memory: the copy is 12 bytes for each trained parameter, divided by the number of ranks, and lives until its
shard is written. Where it would not fit into the machine's free memory, or with
``checkpoint.asynchronous=false``, training waits for the writing instead.
"""

import logging
import math
import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import Future
from copy import deepcopy
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import torch.distributed as dist

from pipelines.config import CheckpointConfig
from pipelines.runs.folder import RunFolder
from pipelines.runs.manifest import checkpoint_name, describe
from pipelines.storage.background import in_background
from pipelines.storage.lease import LeaseLostError
from pipelines.storage.retry import NO_SPACE
from pipelines.storage.scratch import check_room
from pipelines.train.checkpoints.commit import clear, commit, prune
from pipelines.train.engine.distributed import gathered
from pipelines.train.engine.engine import Engine
from pipelines.train.engine.shards import Snapshot, shard_name, take_snapshot, write_shard
from unigeoseg.errors import UserError

logger = logging.getLogger(__name__)
#: Longer than any upload; a rank that dies is noticed at once, by its closed connection.
#: Of weight and two moments, for each trained parameter.
_STATE_BYTES = 12
_GROUP_TIMEOUT = timedelta(days=2)


class CheckpointError(RuntimeError):
    """A checkpoint could not be written; the one before is intact."""


@dataclass(frozen=True)
class SaveReport:
    """What one checkpoint cost.

    Attributes:
        step: optimizer steps done when it was taken.
        name: its folder inside the run.
        bytes: written by all ranks.
        stall_s: seconds that training stood still on this rank, ``waited_s`` included.
        waited_s: of these, waiting for the checkpoint before.
        write_s: seconds from its start to ``COMMITTED``.
        snapshot_bytes: memory that this rank's copy took meanwhile.
        retries: repetitions against storage, all ranks.
    """

    step: int
    name: str
    bytes: int
    stall_s: float
    waited_s: float
    write_s: float
    snapshot_bytes: int
    retries: int

    def plain(self) -> dict[str, Any]:
        """As numbers by name."""
        return {key: value for key, value in vars(self).items() if key != "name"}


class CheckpointWriter:
    """Saves the checkpoints of one run; an object on every rank.

    Args:
        engine: what is saved.
        run: where.
        settings: cadence, how many stay, patience.
        frozen: on rank 0, the pending result of :func:`pipelines.train.checkpoints.frozen.write_frozen`.

    Attributes:
        committed: folder of the newest whole checkpoint inside the run; empty before the first.
    """

    def __init__(
        self,
        engine: Engine,
        run: RunFolder,
        settings: CheckpointConfig,
        frozen: "Future[dict[str, Any] | None] | None" = None,
    ) -> None:
        self._engine, self._run, self._settings, self._frozen = engine, run, settings, frozen
        if run.remote:
            trained = sum(math.prod(shape) for shape in engine.trained_shapes().values())
            check_room(run.base, _STATE_BYTES * trained // engine.world, "this worker's part of a checkpoint")
        self._group: Any = None  # alone, there is nobody to talk to
        if engine.world > 1:
            self._group = dist.new_group(backend="gloo", timeout=_GROUP_TIMEOUT)
        self._pending: Future[SaveReport] | None = None
        self._ended: SaveReport | None = None
        self.committed = ""

    def save(
        self,
        state: dict[str, Any],
        records: Callable[[], None] = lambda: None,
        may_write: Callable[[], None] = lambda: None,
    ) -> None:
        """Starts the checkpoint after ``state["step"]`` steps; every rank calls it at the same step.

        Args:
            state: content of ``state.json``; its ``metrics`` decide which checkpoints are the best, and
                the one that its ``best`` names stays.
            records: called on rank 0 before the checkpoint counts: brings the run's records to storage.
            may_write: called on rank 0 before anything is written; what it raises ends the save on all ranks.

        Raises:
            CheckpointError: the checkpoint before could not be written.
            UserError: the same, for a reason that the user must put right (no space, no permission).
            LeaseLostError: ``may_write`` raised it, perhaps on another rank.
        """
        started = time.perf_counter()
        state = deepcopy(state)  # written beside training, which goes on with what it holds
        if self._pending is not None:
            self._collect()
        waited = time.perf_counter() - started
        pieces = self._engine.own_pieces()
        size = sum(v.numel() * 4 for piece in pieces for v in piece.values.values())
        beside = self._settings.asynchronous and _fits(size)
        snapshot = take_snapshot(pieces, copy=beside)
        stalled = time.perf_counter() - started
        self._pending = in_background(
            lambda: self._write(snapshot, state, records, may_write, started, stalled, waited), "checkpoint"
        )
        if not beside:
            self._collect()

    def poll(self) -> SaveReport | None:
        """The report of a save that has ended since the last call; raises as :meth:`save`."""
        if self._pending is not None and self._pending.done():
            self._collect()
        report, self._ended = self._ended, None
        return report

    def finish(self) -> SaveReport | None:
        """Waits for the save that is under way; as :meth:`poll` otherwise."""
        if self._pending is not None:
            self._collect()
        return self.poll()

    def _collect(self) -> None:
        assert self._pending is not None
        pending, self._pending = self._pending, None
        self._ended = pending.result()
        self.committed = self._ended.name

    def close(self, timeout: float = 60.0) -> None:
        """Gives a save that is under way a last chance, when training ends with an error."""
        if self._pending is not None:
            try:
                self._pending.exception(timeout)
            except TimeoutError:
                logger.warning("the checkpoint under way was given up")

    def _write(
        self,
        snapshot: Snapshot,
        state: dict[str, Any],
        records: Callable[[], None],
        may_write: Callable[[], None],
        started: float,
        stalled: float,
        waited: float,
    ) -> SaveReport:
        engine, run = self._engine, self._run
        name, file = checkpoint_name(int(state["step"])), shard_name(engine.rank, engine.world)
        patience = run.patience
        first, size, before = engine.rank == 0, snapshot.bytes, run.retries

        def begin() -> None:
            if first:
                may_write()
                patience(lambda: clear(run, name))

        self._together(name, begin)

        def own() -> tuple[str, dict[str, Any], dict[str, Any]]:
            path = run.local(f"{name}/{file}")
            write_shard(path, snapshot)
            entry = describe(path.parent, [file])[file]
            _sync(path)
            patience(lambda: run.publish(f"{name}/{file}"))
            if run.remote:
                path.unlink()
            return file, entry, snapshot.parameters

        parts = self._together(name, own)
        snapshot.tensors.clear()

        def last() -> None:
            if first:
                frozen = self._frozen.result() if self._frozen else None
                patience(records)
                patience(lambda: commit(run, name, {**state, "frozen": frozen}, parts, engine.tied_names()))
                best = (state.get("best") or {}).get("step")
                patience(lambda: prune(run, self._settings, best))
                if run.remote:
                    shutil.rmtree(run.base / name, ignore_errors=True)

        self._together(name, last)
        return SaveReport(
            step=int(state["step"]),
            name=name,
            bytes=sum(entry["bytes"] for _, entry, _ in parts),
            stall_s=stalled,
            waited_s=waited,
            write_s=time.perf_counter() - started,
            snapshot_bytes=size,
            retries=sum(self._gather(run.retries - before)),
        )

    def _together(self, name: str, work: Callable[[], Any]) -> list[Any]:
        """Runs ``work`` on every rank; all have its results, or all the error of one of them."""
        answer: tuple[Any, str | None, bool] = (None, None, False)
        try:
            answer = (work(), None, False)
        except LeaseLostError as error:
            answer = (error, "lease", True)
        except Exception as error:
            answer = (None, *_explained(error, f"{self._run.path}/{name}"))
        answers = self._gather(answer)
        for rank, (result, problem, final) in enumerate(answers):
            if isinstance(result, LeaseLostError):
                raise result
            if problem is not None:
                before = f"; {self.committed} is intact" if self.committed else ""
                text = f"checkpoint {name} could not be written (rank {rank}): {problem}{before}"
                raise UserError(text) if final else CheckpointError(text)
        return [result for result, _, _ in answers]

    def _gather(self, value: Any) -> list[Any]:
        return [value] if self._group is None else gathered(value, self._group)


def _explained(error: Exception, where: str) -> tuple[str, bool]:
    """What went wrong in a line, and whether only the user can put it right."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, OSError) and error.errno in NO_SPACE:
        return f"{text}; make room at {where} (or lower checkpoint.keep) and go on with --resume", True
    if isinstance(error, PermissionError):
        return f"{text}; allow writing at {where} and go on with --resume", True
    return f"{type(error).__name__}: {text}", isinstance(error, UserError)


def _fits(size: int) -> bool:
    """Whether the copies of all ranks of this machine fit into its free memory."""
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    free = psutil.virtual_memory().available
    if size * ranks <= 0.8 * free:
        return True
    logger.warning(
        "a checkpoint's copy would take %.1f GiB of %.1f GiB free memory: training waits for the writing",
        size * ranks / 2**30,
        free / 2**30,
    )
    return False


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
