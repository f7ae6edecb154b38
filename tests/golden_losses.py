"""The first losses of the quickstart preset, kept in ``tests/golden/quickstart_losses.json``.

``python -m tests.golden_losses`` writes that file anew: after a change that is meant to change the numbers
(preset, model, losses, schedule, a library), and in the same commit, with the reason. The store is made by
:mod:`tests.tiny_store`, so how the quickstart's own store looks does not matter.
"""

import json
import platform
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

GOLDEN = Path(__file__).parent / "golden" / "quickstart_losses.json"
STEPS = 4
#: A whole run of few steps, so that each part of the task schedule comes; one process, two micro-batches.
SETTINGS = (
    f"train.steps={STEPS}",
    "train.log_every=1",
    "train.micro_batch=4",
    "scale.workers=1",
    "checkpoint.every=1000",
)


def this_platform() -> str:
    """What decides the order of float operations."""
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()} torch {torch.__version__}"


def measure() -> dict[str, Any]:
    """Trains, and returns platform, losses and losses by task of each step."""
    from jobs.settings import load_config
    from pipelines.train.driver.plain import train_plain
    from tests.tiny_store import write_store

    with TemporaryDirectory() as folder:
        store = write_store(Path(folder) / "store", images=32, size=96)
        run = Path(folder) / "run"
        train_plain(load_config("quickstart", SETTINGS), str(store), run, progress=False)
        found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {
        "platform": this_platform(),
        "losses": [row["loss"] for row in found],
        "grad_norms": [row["grad_norm"] for row in found],
        "task_losses": [row["task_losses"] for row in found],
    }


def main() -> None:
    """Writes the file, or another one."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else GOLDEN
    path.write_text(json.dumps(measure(), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
