"""A device that cannot hold a step: which settings hold less, and what held the memory."""

import logging

import torch

from pipelines.config import Config
from pipelines.runs.folder import RunFolder
from pipelines.train.loop.skipping import DIAGNOSTICS
from pipelines.train.loop.step_input import StepInput
from unigeoseg.errors import UserError

logger = logging.getLogger(__name__)


def out_of_memory(
    error: torch.OutOfMemoryError, config: Config, run: RunFolder, item: StepInput, rank: int
) -> UserError:
    """The error for people. A restart would meet the same step again, so it ends the run.

    Args:
        error: PyTorch's.
        config: of the run.
        run: gets ``diagnostics/out-of-memory-rank-R.txt``, what PyTorch's allocator held.
        item: the step that did not fit.
        rank: of this process.
    """
    step, images = item.step, len(item.batches[0].images)
    where = _written(error, run, step, rank)
    first = str(error).splitlines()[0] if str(error) else "no more is known"
    ways = "; or ".join(smaller(config, images))
    return UserError(
        f"rank {rank}'s device cannot hold step {step} with {images} images at once ({first}). Set {ways}. "
        "`unigeoseg plan --store STORE --cluster FILE` counts what each needs"
        + (f"; what held the memory is in {where}" if where else "")
    )


def smaller(config: Config, images: int) -> list[str]:
    """Settings that hold less, the cheapest first; the batch of a step and what is learnt stay the same."""
    train, engine = config.train, config.engine
    found = []
    if not train.activation_checkpointing:
        found.append("train.activation_checkpointing=true (a third more time)")
    parts = [n for n in range(1, images) if images % n == 0]
    if parts:
        found.append(f"train.micro_batch={parts[-1]} (the same batch in {images // parts[-1]} times as many)")
    if engine.zero_stage < 3 and train.optimizer == "adamw" and config.scale.workers > 1:
        found.append(f"engine.zero_stage={engine.zero_stage + 1} (more is cut over the workers)")
    if not engine.offload_optimizer and engine.zero_stage and train.optimizer == "adamw":
        found.append("engine.offload_optimizer=true (the optimizer's state in the host's memory)")
    return found or ["a smaller model.image_size or tokenizer.max_length"]


def _written(error: torch.OutOfMemoryError, run: RunFolder, step: int, rank: int) -> str | None:
    """Where the allocator's own account stands; ``None`` where it cannot be written: the error counts."""
    name = f"{DIAGNOSTICS}/out-of-memory-rank-{rank}.txt"
    account = torch.cuda.memory_summary() if torch.cuda.is_available() else ""
    try:
        run.local(name).write_text(f"step {step}\n{error}\n{account}", encoding="utf-8")
        run.publish(name)
    except OSError as failure:
        logger.warning("%s could not be written: %s", name, failure)
        return None
    return f"{run.path}/{name}"
