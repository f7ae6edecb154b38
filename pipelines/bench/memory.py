"""Memory of real training steps beside the planner's number for them."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from pipelines.config import Config, with_values
from pipelines.models.device import describe_machine
from pipelines.models.sizes import Sizes, measure_model
from pipelines.storage.yaml_text import dump_yaml
from pipelines.train.engine.memory import memory_rows, stages_of
from unigeoseg.errors import UserError


def bench_memory(
    config: Config,
    stages: Sequence[int] | None = None,
    checkpointing: Sequence[bool] = (False, True),
    workers: int = 1,
    batch: int | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Runs two steps of the engine for each case, in fresh processes of one machine.

    Args:
        config: the preset.
        stages: of ZeRO; ``None``: all that the preset's optimizer takes.
        checkpointing: of activations, off and on.
        workers: ranks; on a CPU they share its memory.
        batch: images that a worker holds at once; by default the preset's.
        say: called with news.

    Returns:
        ``{"rows": [{"name", "stage", "checkpointing", "measured_bytes", "planned_bytes", "ratio", "samples",
        "tokens"}], "ratios": {"planned_to_measured_<name>": ...}, "machine"}``.

    Raises:
        UserError: a stage is none of the optimizer's, or a run ended with an error; its last line is told.
    """
    sizes = None
    if stages is None:
        stages = stages_of(config)
    rows = []
    for stage in stages:
        for on in checkpointing:
            case = _case(config, stage, on, workers, batch)
            sizes = sizes or measure_model(case)[0]
            name = f"zero{stage}" + ("_checkpointing" if on else "")
            say(f"{name}: two steps on {workers} worker(s)")
            rows.append({"name": name, **_row(case, sizes)})
    ratios = {f"planned_to_measured_{row['name']}": row["ratio"] for row in rows}
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return {"rows": rows, "ratios": ratios, "machine": describe_machine(device)}


def _case(config: Config, stage: int, on: bool, workers: int, batch: int | None) -> Config:
    micro = batch or config.micro_batch
    values = config.plain()
    values["engine"] |= {"zero_stage": stage, "offload_optimizer": False}
    values["train"] |= {"micro_batch": micro, "global_batch": micro * workers, "activation_checkpointing": on}
    values["scale"] |= {"workers": workers, "min_workers": None}
    if not torch.cuda.is_available():
        values["scale"]["gpus_per_worker"] = 0
    return with_values(config, values, f"ZeRO stage {stage}")


def _row(case: Config, sizes: Sizes) -> dict[str, Any]:
    world, stage, on = case.scale.workers, case.engine.zero_stage, case.train.activation_checkpointing
    rows = memory_rows(case, sizes, world, world)
    planned = next(r for r in rows if (r.stage, r.offload, r.checkpointing) == (stage, False, on))
    found = _run(case, world)
    return {
        "stage": stage,
        "checkpointing": on,
        "measured_bytes": found["bytes"],
        "planned_bytes": planned.device,
        "ratio": planned.device / found["bytes"],
        "samples": found["samples"],
        "tokens": found["tokens"],
    }


def _run(case: Config, workers: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="unigeoseg-bench-") as folder:
        source, target = Path(folder) / "config.yaml", Path(folder) / "found.json"
        source.write_text(dump_yaml(case.plain()), encoding="utf-8")
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(workers)]
        done = subprocess.run(
            [
                *(sys.executable, *(launcher if workers > 1 else ()), "-m", "pipelines.bench.memory_process"),
                *(str(source), str(target)),
            ],
            # What is freed goes back at once: the peak is that of living tensors, not of the allocator.
            env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "131072"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode or not target.exists():
            lines = [line for line in done.stderr.splitlines() if "Error" in line] or ["no message"]
            raise UserError(f"ZeRO-{case.engine.zero_stage} could not be measured: {lines[0].strip()}")
        found: dict[str, Any] = json.loads(target.read_text(encoding="utf-8"))
    return found
