"""Runs the ``unigeoseg`` command as a user would, untouched by clusters around the tests."""

import os
import subprocess
import sys
from pathlib import Path

from tests.train_runs import ROOT


def unigeoseg(
    *arguments: object, seconds: float = 600, cwd: Path = ROOT, **extra: str
) -> subprocess.CompletedProcess[str]:
    """Runs the command in ``cwd``; ``extra`` are variables of its environment."""
    environment = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI")}
    return subprocess.run(
        [sys.executable, "-m", "jobs.cli", *map(str, arguments)],
        cwd=cwd,
        env={**environment, "PYTHONPATH": str(ROOT), **extra},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
