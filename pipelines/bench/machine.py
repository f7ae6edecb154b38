"""The machine that a measurement was made on."""

import os
import platform
import resource
from typing import Any

import torch

#: Dense peak of a GPU in bfloat16, FLOP/s, without sparsity (NVIDIA's data sheets).
_PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "A10G": 70e12}


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Processor, threads, library versions and, on a GPU, its name and peak."""
    facts: dict[str, Any] = {
        "device": str(device),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if device.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(device)
        facts["peak_flops_bf16"] = peak_flops(facts["gpu"])
    return facts


def peak_flops(gpu: str) -> float | None:
    """Dense bfloat16 peak of a GPU by its name, FLOP/s; ``None`` where unknown."""
    return next((peak for name, peak in _PEAKS.items() if name in gpu), None)


def peak_memory(device: torch.device) -> int:
    """Most bytes ever held: allocated on the GPU, or resident in this process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
