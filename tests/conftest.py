"""What several tests share."""

import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data beside the repository; without it the tests that need it are skipped."""
    path = ROOT.parent / "shared"
    if not path.is_dir():
        warnings.warn(f"{path} is missing: checks against reference data do not run", stacklevel=1)
        pytest.skip(f"{path} is missing")
    return path


@pytest.fixture(scope="session")
def run_python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs Python code in a fresh process at the repository's root."""

    def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


@pytest.fixture(scope="session")
def run_module() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs ``python -m module arguments…`` in a fresh process at the repository's root."""

    def run(module: str, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", module, *map(str, arguments)],
            cwd=ROOT,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


@pytest.fixture(scope="session")
def run_cli(run_module: Callable[..., Any]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the ``unigeoseg`` command in a fresh process at the repository's root."""
    return partial(run_module, "jobs.cli")
