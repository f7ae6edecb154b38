"""Runs the ``unigeoseg`` command as a user would, untouched by clusters around the tests."""

import os
import subprocess
from pathlib import Path

from tests.warm import ROOT, run_warm


def unigeoseg(
    *arguments: object, seconds: float = 600, cwd: Path = ROOT, **extra: str
) -> subprocess.CompletedProcess[str]:
    """Runs the command in ``cwd``; ``extra`` are variables of its environment."""
    environment = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI")}
    environment |= {"PYTHONPATH": str(ROOT), **extra}
    return run_warm("jobs.cli", *map(str, arguments), folder=cwd, environment=environment, timeout=seconds)
