"""What a measurement was made on."""

import os
import platform
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from pipelines.storage.ahead import cores


def machine() -> dict[str, Any]:
    """Processor, cores, memory in GiB, load over the last minute, and versions."""
    return {
        "cpu": _cpu_name(),
        "cores": cores(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (x.partition(":")[2].strip() for x in lines if x.startswith("model name")), platform.machine()
    )
