"""A device that cannot hold a run: which settings hold less, and what held the memory."""

import logging

import torch
import torch.distributed as dist

from pipelines.config import Config
from pipelines.runs.folder import RunFolder
from pipelines.train.engine.deepspeed_config import accumulation_steps
from pipelines.train.loop.skipping import DIAGNOSTICS
from unigeoseg.errors import UserError

logger = logging.getLogger(__name__)


def out_of_memory(error: torch.OutOfMemoryError, config: Config, run: RunFolder) -> UserError:
    """The error for people. A restart would meet the same again, so it ends the run.

    Args:
        error: PyTorch's, of a step or of anything before and after it.
        config: of the run.
        run: gets ``diagnostics/out-of-memory-rank-R.txt``, what PyTorch's allocator held.
    """
    ranks = dist.is_initialized()
    rank, world = (dist.get_rank(), dist.get_world_size()) if ranks else (0, config.scale.workers)
    held = config.train.global_batch // world // accumulation_steps(config, world)
    where = _written(error, run, rank)
    first = str(error).splitlines()[0] if str(error) else "no more is known"
    return UserError(
        f"rank {rank}'s device cannot hold this training with {held} image{'s' * (held > 1)} at once "
        f"({first}). Set {'; or '.join(smaller(config, world, held))}: a run goes on with --resume and "
        "--allow-config-change for what is changed. `unigeoseg plan --store STORE --cluster FILE` counts "
        "what each needs" + (f"; what held the memory is in {where}" if where else "")
    )


def smaller(config: Config, world: int, held: int) -> list[str]:
    """Settings that hold less, the cheapest first; the batch of a step and what is learnt stay the same.

    Args:
        config: of the run.
        world: workers.
        held: positions that a worker holds at once.
    """
    train, engine = config.train, config.engine
    found = []
    if not train.activation_checkpointing:
        found.append("train.activation_checkpointing=true (a third more time)")
    parts = [n for n in range(1, held) if held % n == 0]
    if parts:
        found.append(f"train.micro_batch={parts[-1]} (the same batch in {held // parts[-1]} times as many)")
    if engine.zero_stage < 3 and train.optimizer == "adamw" and world > 1:
        found.append(f"engine.zero_stage={engine.zero_stage + 1} (more is cut over the workers)")
    if not engine.offload_optimizer and engine.zero_stage and train.optimizer == "adamw":
        found.append("engine.offload_optimizer=true (the optimizer's state in the host's memory)")
    return found or ["a smaller model.image_size or tokenizer.max_length"]


def _written(error: torch.OutOfMemoryError, run: RunFolder, rank: int) -> str | None:
    """Where the allocator's own account stands; ``None`` where it cannot be written: the error counts."""
    name = f"{DIAGNOSTICS}/out-of-memory-rank-{rank}.txt"
    account = torch.cuda.memory_summary() if torch.cuda.is_available() else ""
    try:
        run.local(name).write_text(f"{error}\n{account}", encoding="utf-8")
        run.publish(name)
    except OSError as failure:
        logger.warning("%s could not be written: %s", name, failure)
        return None
    return f"{run.path}/{name}"
