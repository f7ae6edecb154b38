"""The process group, wherever the engine runs: Ray Train worker, torchrun, or one plain process."""

import gc
import importlib
import os
import time
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from pipelines.train.engine.deepspeed_private import import_deepspeed

#: Collectives that a rank remembers; a large model's step has some hundreds.
_RECORDED = 2000
#: DeepSpeed keeps the group of a model in stage 3 for good; its threads let go of their last tensors then.
_LAST_BREATH = 0.1  # seconds


def last_collectives() -> bytes:
    """What this rank's newest collectives were and how far they came, as JSON of PyTorch's flight recorder.

    Laid side by side, the ranks' records show which of them did not come to which collective.
    """
    from torch._C import _distributed_c10d  # what PyTorch itself calls on a time-out; it has no public name

    name = "_dump_nccl_trace_json" if torch.cuda.is_available() else "_dump_fr_trace_json"
    return bytes(getattr(_distributed_c10d, name)())


def ensure_process_group() -> bool:
    """Joins the group that the environment describes; alone, makes a group of one without any port.

    Returns:
        Whether the group was made here, so that the caller has to leave it: :func:`leave_process_group`.
    """
    if dist.is_initialized():
        return False
    # These take the group of their import for the default of their functions, and would keep its threads.
    import_deepspeed()
    importlib.import_module("torch.distributed.nn.functional")
    os.environ.setdefault("LOCAL_RANK", "0")  # DeepSpeed insists on it
    os.environ.setdefault("TORCH_FR_BUFFER_SIZE", str(_RECORDED))
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(local_device())
        backend = "cpu:gloo,cuda:nccl"  # what is pickled between ranks does not go over the GPU
    if "RANK" in os.environ and "MASTER_ADDR" in os.environ:
        dist.init_process_group(backend)
        return True
    store = dist.HashStore()  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=store, rank=0, world_size=1)
    return True


def leave_process_group() -> None:
    """Destroys the group, if there is one, and ends its threads.

    A thread of gloo's that still lets go of a tensor while Python shuts down aborts the process. The threads
    end with the last one that holds the group: the caller's engine is closed, and nothing of it held.
    """
    if not dist.is_initialized():
        return
    import deepspeed

    if deepspeed.comm.is_initialized():
        deepspeed.comm.destroy_process_group()  # and what DeepSpeed holds of it
    else:
        dist.destroy_process_group()
    gc.collect()  # objects of DeepSpeed's that are of no more use hold each other, and the group
    time.sleep(_LAST_BREATH)


def gathered(value: Any, group: Any = None) -> list[Any]:
    """Every rank's ``value``, in rank order, on every rank; a collective call of all ranks, or of a group."""
    if not dist.is_initialized():
        return [value]
    answers: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(answers, value, group=group)
    return answers


def local_device() -> torch.device:
    """This process's GPU, or the CPU where there is none."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


def mixed_seed(*parts: int) -> int:
    """A 63-bit seed from several numbers; near inputs give unrelated seeds."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))
