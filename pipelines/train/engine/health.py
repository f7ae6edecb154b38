"""Whether the machines of a run are fit to train: looked at before the first step and after each restart.

A device that multiplies wrongly, a link that adds wrongly or a machine with a tenth of the others' speed does
not stop a run; it spoils it, or makes all ranks wait. Each rank therefore computes a few things whose results
are known, and all ranks judge all answers alike.
"""

import shutil
import socket
import statistics
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
import torch
import torch.distributed as dist
from torch import Tensor

from pipelines.storage.scratch import scratch_place
from pipelines.train.engine.distributed import gathered

#: Side of the matrices, by kind of device, and how often they are multiplied.
_SIDE, _TIMES = {"cuda": 2048, "cpu": 384}, 3
#: Numbers that are summed over the ranks.
_SUMMED = 1 << 16
#: Bytes below which memory and disk are told of.
_LITTLE = 2**30
#: Seconds by which a clock may differ from the middle one; leases and signed requests rest on clocks.
_APART = 2.0
#: Share of the middle speed below which a device is told of.
_SLOW = 0.5


class UnfitNodeError(RuntimeError):
    """A machine that must not train; the message names it. Another one may do."""


@dataclass(frozen=True)
class Health:
    """What a rank says of its machine.

    Attributes:
        rank: of the process group.
        place: the machine's name: its host, or Ray's id of the node.
        host: its name on the network.
        device: kind and name.
        flops: of a float32 matrix product, a second.
        clock: seconds since the epoch, taken when all ranks were at the same point.
        faults: what makes it unfit.
        doubts: what a person should know.
    """

    rank: int
    place: str
    host: str
    device: str
    flops: float
    clock: float
    faults: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


def examine(device: torch.device, place: str) -> list[Health]:
    """What every rank says of its machine, in rank order; a collective call.

    Args:
        device: of this rank.
        place: see :class:`Health`.
    """
    faults, doubts = [], _room(device)
    flops, wrong = multiplied(device)
    if wrong:
        faults.append("its device multiplies wrongly")
    faults += _counted_errors(device)
    dist.barrier()
    clock = time.time()
    if not added(device):
        faults.append("sums over the ranks come out wrong here")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    rank, where = dist.get_rank(), socket.gethostname()
    own = Health(rank, place, where, name, flops, clock, tuple(faults), tuple(doubts))
    return gathered(own)


def multiplied(device: torch.device) -> tuple[float, bool]:
    """FLOP/s of a matrix product of whole numbers, and whether it is wrong.

    The sums are below 2^24, so float32 and its shorter forms hold them exactly. A product C = A B is checked
    by C v = A (B v) in whole numbers, with a random v (Freivalds 1977).
    """
    side = _SIDE.get(device.type, _SIDE["cpu"])
    places = np.arange(side)
    left = ((places[:, None] * 31 + places * 17) % 9 - 4).astype(np.int64)
    right = ((places[:, None] * 13 + places * 29) % 7 - 3).astype(np.int64)
    a, b = (torch.from_numpy(m).to(device, torch.float32) for m in (left, right))
    seconds, products = [], []
    for _ in range(_TIMES):
        start = time.perf_counter()
        products.append(a @ b)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    vector = np.random.default_rng(0).integers(1, 1 << 20, side)
    wanted = left @ (right @ vector)
    wrong = any(not _is_product(product, vector, wanted) for product in products)
    return 2 * side**3 / min(seconds), wrong


def _is_product(product: Tensor, vector: Any, wanted: Any) -> bool:
    found = product.double().cpu().numpy()
    if not np.isfinite(found).all() or (found != np.rint(found)).any():
        return False
    return bool((found.astype(np.int64) @ vector == wanted).all())


def added(device: torch.device) -> bool:
    """Whether whole numbers summed over all ranks are right; a collective call."""
    world, rank = dist.get_world_size(), dist.get_rank()
    base = torch.arange(_SUMMED, device=device, dtype=torch.float32) % 1000
    values = base + rank
    dist.all_reduce(values)
    return bool((values == world * base + world * (world - 1) // 2).all())


def _room(device: torch.device) -> list[str]:
    doubts = []
    if (free := psutil.virtual_memory().available) < _LITTLE:
        doubts.append(f"{free / 2**30:.1f} GiB of memory left")
    place = scratch_place()
    if place.is_dir() and (free := shutil.disk_usage(place).free) < _LITTLE:
        doubts.append(f"{free / 2**30:.1f} GiB left in {place}")
    if device.type == "cuda":
        unused, whole = torch.cuda.mem_get_info(device)
        others = whole - unused - torch.cuda.memory_reserved(device)
        if others > 2 * _LITTLE:
            doubts.append(f"other processes hold {others / 2**30:.0f} GiB of its GPU")
    return doubts


def _counted_errors(device: torch.device) -> list[str]:
    """Memory errors that NVML has counted since the machine started; nothing where it cannot be asked."""
    if device.type != "cuda":
        return []
    found: list[str] = []
    with suppress(Exception):  # no library, an older driver, a card without ECC
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        with suppress(pynvml.NVMLError):
            errors = pynvml.nvmlDeviceGetTotalEccErrors(
                handle, pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC
            )
            if errors:
                found.append(f"its GPU has met {errors} memory errors that it could not correct")
        with suppress(pynvml.NVMLError):
            if pynvml.nvmlDeviceGetRemappedRows(handle)[3]:
                found.append("its GPU has no spare rows left for broken memory")
    return found


def judged(found: Sequence[Health]) -> tuple[dict[str, str], list[str]]:
    """Machines that are unfit with the reason, and what a person should know of the others."""
    broken = [one for one in found if one.faults]
    unfit = {one.place: f"{one.host} (rank {one.rank}): {'; '.join(one.faults)}" for one in broken}
    told = [f"rank {one.rank} on {one.host}: {doubt}" for one in found for doubt in one.doubts]
    middle = statistics.median(one.clock for one in found)
    for one in found:
        if abs(one.clock - middle) > _APART:
            told.append(
                f"rank {one.rank} on {one.host}: its clock is {one.clock - middle:+.0f} s from the others'"
            )
        alike = [other.flops for other in found if other.device == one.device]
        usual = statistics.median(alike)
        if len(alike) > 1 and one.flops < _SLOW * usual:
            share = f"{one.flops / usual:.0%}"
            told.append(f"rank {one.rank} on {one.host}: it multiplies at {share} of the others' speed")
    return unfit, told
