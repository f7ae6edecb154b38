"""The kernels in which a step spends most of its time, from PyTorch's profiler."""

from typing import Any

import torch
from torch.profiler import ProfilerActivity
from torch.profiler import profile as torch_profile


def profile() -> torch_profile:
    """Records operators, and kernels where there is a GPU."""
    gpu = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
    return torch_profile(activities=[ProfilerActivity.CPU, *gpu])


def largest_kernels(profiler: torch_profile, count: int) -> list[dict[str, Any]]:
    """The ``count`` largest by their own time, as ``{"name", "seconds", "share", "calls"}``.

    On a GPU they are kernels and ``share`` is of all kernels' time; on a CPU they are operators.
    """
    events = profiler.key_averages()
    on_gpu = [e for e in events if str(e.device_type).endswith("CUDA") and not e.is_user_annotation]
    rows = [(e.self_device_time_total, e) for e in on_gpu] or [(e.self_cpu_time_total, e) for e in events]
    total = sum(time for time, _ in rows) or 1.0
    rows.sort(key=lambda row: -row[0])
    return [
        {"name": event.key, "seconds": time / 1e6, "share": time / total, "calls": event.count}
        for time, event in rows[:count]
    ]
