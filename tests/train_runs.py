"""Small training runs for tests: the configuration, and a way to run one in processes of its own.

``python -m tests.train_runs MODE RUN STORE OVERRIDES(JSON)``, MODE ``plain`` (also by torchrun) or ``ray``.
"""

import atexit
import json
import os
import shutil
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from tests.warm import Command, start_warm

ROOT = Path(__file__).parents[1]
TINY: dict[str, Any] = {
    "name": "tiny",
    "engine": {"zero_stage": 2},
    "train": {
        "precision": "fp32",
        "global_batch": 4,
        "lr": 1e-3,
        "steps": 8,
        "activation_checkpointing": False,
        "log_every": 1,
    },
    "checkpoint": {"every": 4, "keep": 2},
    "tokenizer": {"vocab_size": 320, "max_length": 200},
    "model": {
        "system_prompt": "",
        "image_size": 64,
        "vision": {
            "embed_dim": 16,
            "depths": [1, 1, 1, 1],
            "heads": [1, 1, 2, 2],
            "window": 2,
            "frozen": False,
        },
        "connector": {"stride": 1},
        "tate": {"dropout": 0.0},
        "language": {
            "hidden_size": 32,
            "layers": 1,
            "heads": 2,
            "intermediate_size": 64,
            "max_positions": 256,
        },
        "decoder": {
            "hidden": 32,
            "heads": 2,
            "pixel_layers": 1,
            "pixel_ffn": 32,
            "mask_layers": 2,
            "mask_ffn": 32,
            "query_width": 32,
        },
        "loss": {"points": 64},
    },
}


def tiny_values(**overrides: Any) -> dict[str, Any]:
    """The tiny configuration with dotted overrides, ``{"train.lr": 1.0}``."""
    values: dict[str, Any] = json.loads(json.dumps(TINY))
    for key, value in overrides.items():
        *sections, last = key.split(".")
        place = values
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    return values


@cache
def empty_database() -> Path:
    """MLflow's database before its first run: its dozens of migrations are the larger part of a tiny run."""
    import mlflow

    path = Path(tempfile.mkdtemp(prefix="unigeoseg-tests-")) / "mlflow.db"
    atexit.register(shutil.rmtree, path.parent)
    mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


def start(
    mode: str,
    run: Path | str,
    store: Path,
    processes: int = 1,
    environment: dict[str, str] | None = None,
    **overrides: Any,
) -> Command:
    """Starts a run in processes of its own; ``resume`` and configuration keys are overrides."""
    if isinstance(run, Path) and not (database := run.parent / "mlflow.db").exists():
        run.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(empty_database(), database)
    words = ("tests.train_runs", mode, str(run), str(store), json.dumps(overrides))
    chosen = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
    return start_warm(*words, environment=chosen, joined=True, ranks=processes)


def finish(process: Command, code: int = 0) -> str:
    """Waits for a run; its output when it ended as expected."""
    output = process.communicate(timeout=300)[0]
    assert process.returncode == code, output
    return output


def main() -> None:
    """Runs one, as told by the command line."""
    mode, run, store, text = sys.argv[1:]
    overrides = json.loads(text)
    resume, allow = overrides.pop("resume", False), overrides.pop("allow", ())
    from pipelines.config import Config
    from unigeoseg.errors import UserError

    config = Config.model_validate(tiny_values(**overrides))
    try:
        if mode == "ray":
            from pipelines.train.driver.launcher import train

            train(config, store, run, resume=resume, evaluate=False, allow=allow)
        else:
            from pipelines.train.driver.plain import train_plain

            train_plain(config, store, run, resume=resume, allow=allow)
            assert "ray" not in sys.modules, "the plain loop must not need Ray"
    except UserError as error:
        print(f"user error: {error}")
        sys.exit(2)


if __name__ == "__main__":
    main()
