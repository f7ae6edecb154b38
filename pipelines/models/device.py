"""The device that a measurement was made on: its name, peak and memory."""

import gc
import re
import resource
from typing import Any

import torch

from pipelines.models.machine import machine

#: Dense peak of a GPU in bfloat16, FLOP/s, without sparsity (NVIDIA's data sheets).
_PEAKS = {
    "H200": 989e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "A10G": 70e12,
}


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Processor, threads, library versions and, on a GPU, its name and peak."""
    facts: dict[str, Any] = {
        **machine(),
        "device": str(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    if device.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(device)
        facts["peak_flops_bf16"] = peak_flops(facts["gpu"])
    return facts


def peak_flops(gpu: str) -> float | None:
    """Dense bfloat16 peak of a GPU by its name, FLOP/s; ``None`` where unknown."""
    words = re.split(r"[^A-Za-z0-9]+", gpu)
    return next((peak for name, peak in _PEAKS.items() if name in words), None)


def peak_memory(device: torch.device) -> int:
    """Most bytes held so far: allocated on the GPU since :func:`forget_peak`, or resident in this process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def forget_peak(device: torch.device) -> None:
    """Lets go of what nothing refers to any more; on a GPU :func:`peak_memory` counts from here on."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def synchronize(device: torch.device) -> None:
    """Waits until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
