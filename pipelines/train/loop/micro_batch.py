"""``train.micro_batch=auto``: as many positions at once as every device holds, by the planner's count."""

import math
import socket
from collections import Counter
from dataclasses import dataclass

import psutil
import torch

from pipelines.config import Config
from pipelines.config.batch import positions_per_worker
from pipelines.models.info import INSTRUCTION
from pipelines.models.sizes import measure_model
from pipelines.store.index import StoreIndex
from pipelines.train.engine.distributed import gathered, local_device
from pipelines.train.engine.memory import (
    GIB,
    USABLE,
    largest_micro_batch,
    needed,
    what_fits,
    with_micro_batch,
)
from pipelines.train.loop.metrics import container_memory

#: Of a machine's free memory, for training: its allocator keeps what steps free (``keep_freed_memory``).
_OF_HOST = 0.5
#: Tokens of a word at the most, of a tokenizer trained on few texts.
_TOKENS = 2


@dataclass(frozen=True)
class Chosen:
    """What ``auto`` came to.

    Attributes:
        config: the job's, with the number, and the workers that there are.
        text: why, for people; ``None`` where a number was given.
    """

    config: Config
    text: str | None = None


def choose_micro_batch(config: Config, index: StoreIndex) -> Chosen:
    """Takes the largest part of a worker's positions that the fullest device has room for.

    A collective call, before the model is there: what is free now is what there is. The batch of a step and
    what is learnt from it stay the same, whatever is chosen. Where not even one position fits by the count,
    one is taken: the count may be too careful.

    Args:
        config: of the run.
        index: of its store; the longest instruction decides how long a sequence may get.

    Raises:
        UserError: the batch cannot be split over the workers.
    """
    if config.train.micro_batch != "auto":
        return Chosen(config)
    reports = gathered((socket.gethostname(), _free()))
    world = len(reports)
    own = positions_per_worker(config.train.global_batch, world)
    hosts = Counter(host for host, _ in reports)
    shared = not torch.cuda.is_available()  # a machine's memory among its workers
    usable = _OF_HOST if shared else USABLE
    room = usable * min(free / (hosts[host] if shared else 1) for host, free in reports)
    longest = max(INSTRUCTION, _TOKENS * int(index.table["words"].to_numpy().max(initial=0)))
    sizes = measure_model(config, longest)[0]
    per_node = max(hosts.values())
    size = largest_micro_batch(config, sizes, world, per_node, room)
    taken = with_micro_batch(config, size or 1, world)
    need = needed(taken, sizes, world, per_node).device
    text = (
        f"train.micro_batch=auto: {size or 1} of a worker's {own} positions at once"
        f"{_times(own // (size or 1))}; by the planner's count {need / GIB:.1f} GiB of the {room / GIB:.1f} "
        "that are usable on the fullest device"
    )
    if size is None:
        fits = what_fits(taken, sizes, world, per_node, room)
        text += ", so it may not fit" + (f": {fits}" if fits else "")
    return Chosen(taken, text)


def _free() -> int:
    device = local_device()
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    used, limit = container_memory() or (0, math.inf)
    return int(min(psutil.virtual_memory().available, limit - used))


def _times(parts: int) -> str:
    return f", {parts} times a step" if parts > 1 else ""
