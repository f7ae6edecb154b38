"""The engine that trains, timed: DeepSpeed, float32 masters, clipping, metrics, one process or several."""

from collections.abc import Sequence
from statistics import median
from typing import Any

import psutil
import torch
import torch.distributed as dist

from pipelines.bench.engine_steps import EngineSteps, alone
from pipelines.config import Config
from pipelines.models.device import forget_peak, peak_memory
from pipelines.models.mfu import Utilisation
from pipelines.models.sizes import Sizes
from pipelines.train.engine.distributed import gathered, local_device
from pipelines.train.engine.memory import model_states
from pipelines.train.engine.step import StepResult
from unigeoseg.errors import UserError

#: Of the memory that is free, for the model's states; the rest is for activations.
_SHARE = 0.7


def bench_engine(
    config: Config, batches: Sequence[int], instructions: int, steps: int, warmup: int
) -> list[dict[str, Any]]:
    """Times ``Engine.train_step``; a collective call of the ranks, if there are several.

    Args:
        config: the preset.
        batches: images of a micro-batch on each worker, a measurement for each; a step is one micro-batch.
        instructions: of an image.
        steps: timed steps; medians count.
        warmup: steps before.

    Returns:
        For each batch ``batch``, ``instructions``, ``workers``, ``zero_stage``, ``step_seconds``,
        ``forward``, ``backward`` and ``optimizer`` (this rank's seconds, on a GPU by events), ``samples``,
        ``images`` and ``tokens`` ``_per_second`` of all workers, ``padding`` (its share of the positions that
        the language model computes), ``mfu`` or ``None``, ``peak_memory_bytes``. Where a device is full the
        last entry has ``out_of_memory`` in their place.

    Raises:
        UserError: a device of one of several ranks is full; the others wait for it, so all end.
    """
    world = dist.get_world_size()
    chosen = alone(config, batch=max(batches), workers=world)
    try:
        bench = EngineSteps(chosen, instructions=instructions)
    except torch.OutOfMemoryError as error:
        return [_full(batches[0], error, world)]
    found: list[dict[str, Any]] = []
    for size in batches:
        try:
            bench.hold(size)
            forget_peak(bench.engine.device)
            timed = [bench.step() for _ in range(warmup + steps)][warmup:]
        except torch.OutOfMemoryError as error:  # nothing is known of the engine's state after it
            found.append(_full(size, error, world))
            break
        found.append({"batch": size, "instructions": instructions, **_row(chosen, bench, timed, world)})
    bench.engine.close()
    return found


def what_is_lacking(config: Config, sizes: Sizes, device: torch.device) -> str | None:
    """Why the engine cannot be timed here, in words; ``None``: it can. A collective call.

    Args:
        config: the preset.
        sizes: of the model; its modules are not asked for.
        device: where; a GPU says so itself when it is full.
    """
    forget_peak(local_device())  # of the bare model
    found = None
    if device.type != local_device().type:
        found = "it trains on this machine's GPU: give --device cuda"
    elif device.type == "cpu":
        world = dist.get_world_size()
        engine, chosen = config.engine, alone(config, workers=world)
        offload = engine.offload_optimizer and engine.zero_stage > 0
        states = model_states(chosen, sizes, engine.zero_stage, offload, world, world)
        passes = states.passing + states.gradient * sizes.trained
        needed = world * (states.kept + max(passes, states.update) + states.host)
        free = psutil.virtual_memory().available
        if needed > _SHARE * free:
            found = f"its states take about {needed / 2**30:.0f} GiB, and {free / 2**30:.0f} are free here"
    return next((why for why in gathered(found) if why is not None), None)  # what is free changes


def _full(size: int, error: torch.OutOfMemoryError, world: int) -> dict[str, Any]:
    why = str(error).splitlines()[0]
    if world > 1:
        raise UserError(f"--batch {size}: rank {dist.get_rank()}'s device cannot hold it ({why})") from error
    return {"batch": size, "out_of_memory": why}


def _row(
    config: Config, bench: EngineSteps, timed: list[tuple[float, StepResult]], world: int
) -> dict[str, Any]:
    seconds = median(time for time, _ in timed)
    parts = ("forward", "backward", "optimizer")
    result, batch = timed[-1][1], bench.batch
    return {
        "workers": world,
        "zero_stage": config.engine.zero_stage,
        "step_seconds": seconds,
        **{part: median(getattr(each.seconds, part) for _, each in timed) for part in parts},
        "samples_per_second": result.instructions / seconds,
        "images_per_second": result.images / seconds,
        "tokens_per_second": result.tokens / seconds,
        "padding": 1 - batch.tokens / batch.computed,
        "mfu": Utilisation(config, world)(result.images, result.instructions, result.tokens, seconds),
        "peak_memory_bytes": peak_memory(bench.engine.device),
    }
