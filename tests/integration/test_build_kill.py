"""A build through Ray that is killed with SIGKILL, at several moments, and started again."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.slow]
ROOT = Path(__file__).parents[2]


def command(out, workers):
    sets = [f"workers={workers}", "block_images=4", "source.scenes=60", "shard_bytes=200000"]
    options = [part for text in sets for part in ("--set", text)]
    return [
        sys.executable, "-m", "jobs.cli", "data", "build", "--source", "synthetic",
        "--out", str(out), *options,
    ]  # fmt: skip


def contents(folder):
    files = [f for f in sorted(folder.rglob("*")) if f.is_file()]
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def test_killed_and_started_again_with_other_workers(tmp_path):
    subprocess.run(command(tmp_path / "whole", 0), cwd=ROOT, check=True, capture_output=True)
    out, deaths = tmp_path / "s", 0
    for goal in ("part-000001.json", "part-000009.json", "train-00001.json"):
        process = subprocess.Popen(command(out, 2 - deaths % 2), cwd=ROOT, start_new_session=True)
        while process.poll() is None and not (out / "_build" / goal).exists():
            time.sleep(0.01)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            deaths += 1
        assert not (out / "dataset.json").exists() or process.returncode == 0
    assert deaths >= 2
    if not (out / "dataset.json").exists():
        subprocess.run(command(out, 2), cwd=ROOT, check=True, capture_output=True)
    assert contents(out) == contents(tmp_path / "whole")
