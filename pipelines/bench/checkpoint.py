"""What a checkpoint costs training: how long it stands still, how much slower it is, how much is written."""

import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from statistics import median
from typing import Any

import torch

from pipelines.config import Config
from pipelines.models.device import describe_machine
from unigeoseg.errors import UserError


def bench_checkpoint(
    config: Config,
    widths: Sequence[int] = (1, 4),
    saves: int = 3,
    folder: str | None = None,
    batch: int | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Measures checkpoints of the training engine in one process, beside training and with training waiting.

    Args:
        config: the preset; its cadence is what the stall is compared with.
        widths: factors on the width of its language model, one size each.
        saves: checkpoints of each kind; medians count.
        folder: where they are written (folder or ``s3://``); by default a temporary folder.
        batch: images in a step; by default what one worker of the preset holds at once.
        say: called with news.

    Returns:
        ``{"rows": [{"name", "trained_parameters", "step_seconds", "stall_seconds", "slowed_seconds",
        "write_seconds", "restore_seconds", "bytes", "snapshot_bytes", "every_seconds", ...}], "ratios":
        {"stall_share_width_1", ...}, "machine"}``. ``stall_seconds`` is how long ``save`` holds training,
        ``slowed_seconds`` how much longer the steps beside the writing take together; the share is their sum
        over the time between two checkpoints at the preset's cadence. ``restore_seconds`` is what it takes to
        go on from one at any world size and ZeRO stage: checksums, reading, setting weights and optimizer.

    Raises:
        UserError: a width that the preset's model cannot have.
    """
    rows = []
    for width in widths:
        say(f"width {width}: {saves} checkpoints beside training, {saves} with training waiting")
        with (
            tempfile.TemporaryDirectory(prefix="unigeoseg-bench-") as scratch,
            ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool,
        ):
            place = f"{(folder or scratch).rstrip('/')}/width-{width}"
            rows.append(pool.submit(_measure, widened(config, width), width, saves, place, batch).result())
    ratios = {}
    for row in rows:
        ratios[f"stall_share_{row['name']}"] = row["stall_share"]
        ratios[f"waiting_to_beside_{row['name']}"] = row["waiting_seconds"] / max(
            1e-9, row["stall_seconds"] + row["slowed_seconds"]
        )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return {"rows": rows, "ratios": ratios, "machine": describe_machine(device)}


def widened(config: Config, width: int) -> Config:
    """The preset with a language model ``width`` times as wide.

    Raises:
        UserError: its language model is given by a path.
    """
    if width == 1:
        return config
    values = config.plain()
    language = values["model"]["language"]
    if language["path"] is not None:
        raise UserError("model.language.path fixes the model's size: measure it with --widths 1")
    for key in ("hidden_size", "intermediate_size", "heads"):
        language[key] *= width
    return Config.model_validate(values)


def _measure(config: Config, width: int, saves: int, folder: str, batch: int | None) -> dict[str, Any]:
    from pipelines.bench.engine_steps import EngineSteps, alone

    steps = EngineSteps(alone(config, batch=batch))
    for _ in range(3):
        steps.step()
    step = median(steps.step()[0] for _ in range(7))
    beside = _saves(steps, config, saves, folder, step, asynchronous=True)
    waiting = _saves(steps, config, saves, folder, step, asynchronous=False)
    restore = _restore(steps, folder)
    every = step * config.checkpoint.every
    stall, slowed = beside["stall"], beside["slowed"]
    return {
        "name": f"width_{width}",
        **steps.parameters(),
        "step_seconds": step,
        "every_steps": config.checkpoint.every,
        "every_seconds": every,
        "stall_seconds": stall,
        "slowed_seconds": slowed,
        "stall_share": (stall + slowed) / every,
        "stall_to_step": stall / step,
        "write_seconds": beside["write"],
        "waiting_seconds": waiting["write"],
        "restore_seconds": restore,
        "bytes": beside["bytes"],
        "snapshot_bytes": beside["snapshot"],
    }


def _restore(steps: Any, folder: str) -> float:
    from pipelines.runs.folder import RunFolder
    from pipelines.train.checkpoints.restore import find_checkpoint, load_checkpoint

    run, started = RunFolder(folder), time.perf_counter()
    found = find_checkpoint(run)
    assert found is not None
    load_checkpoint(steps.engine, run, found)
    seconds = time.perf_counter() - started
    run.close()
    return seconds


def _saves(
    steps: Any, config: Config, saves: int, folder: str, step: float, asynchronous: bool
) -> dict[str, float]:
    from pipelines.runs.folder import RunFolder
    from pipelines.train.checkpoints.writer import CheckpointWriter, SaveReport

    settings = config.checkpoint.model_copy(update={"asynchronous": asynchronous})
    run = RunFolder(folder)
    reports: list[SaveReport] = []
    slowed: list[float] = []
    for _ in range(saves):
        writer = CheckpointWriter(steps.engine, run, settings)
        writer.save({"step": steps.done})
        report, extra = writer.poll(), 0.0
        while report is None and asynchronous:
            extra += steps.step()[0] - step
            report = writer.poll()
        if report is None:
            raise RuntimeError("a checkpoint that training waited for left no report")
        reports.append(report)
        slowed.append(extra)
        steps.step()
    run.close()
    return {
        "stall": median(r.stall_s for r in reports),
        "slowed": max(0.0, median(slowed)),
        "write": median(r.write_s for r in reports),
        "bytes": reports[-1].bytes,
        "snapshot": reports[-1].snapshot_bytes,
    }
