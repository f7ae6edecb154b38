"""A logged step as one row: what ``metrics.jsonl``, the progress line and MLflow show."""

import math
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch

from pipelines.train.engine.step import StepResult, StepSeconds
from unigeoseg.losses.mask_watch import WATCHED
from unigeoseg.tasks import TASKS

#: Steps at the start of a worker's life that no rate is taken from (caches, allocators, first blocks).
WARMUP_STEPS = 2


@dataclass
class Window:
    """Sums over the steps since the last row (rates leave the warm-up steps out)."""

    task_sums: dict[str, float] = field(default_factory=lambda: dict.fromkeys(TASKS, 0.0))
    task_counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TASKS, 0))
    loss_counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TASKS, 0))
    watched: dict[str, dict[str, float]] = field(
        default_factory=lambda: {name: dict.fromkeys(TASKS, 0.0) for name in WATCHED}
    )
    steps: int = 0
    wall: float = 0.0
    instructions: int = 0
    images: int = 0
    tokens: int = 0

    def add(self, result: StepResult, wall: float, warm: bool) -> None:
        """Takes a step in; ``wall`` is its time from end to end in seconds."""
        for task in TASKS:
            self.task_counts[task] += result.task_counts[task]
            if result.finite:  # a step that was left out has no loss
                self.task_sums[task] += result.task_sums[task]
                self.loss_counts[task] += result.task_counts[task]
                for name, sums in result.watched.items():
                    self.watched[name][task] += sums[task]
        if warm:
            self.steps += 1
            self.wall += wall
            self.instructions += result.instructions
            self.images += result.images
            self.tokens += result.tokens


@dataclass
class RankReport:
    """What a rank tells rank 0 at each row: its time per part, its memory, its data's state."""

    seconds: StepSeconds = field(default_factory=StepSeconds)
    steps: int = 0
    memory: dict[str, float] = field(default_factory=dict)
    memory_share: dict[str, float] = field(default_factory=dict)
    retries: int = 0
    host: str = field(default_factory=socket.gethostname)

    def add(self, seconds: StepSeconds) -> None:
        """Takes a step's time in."""
        self.steps += 1
        for name, value in vars(seconds).items():
            setattr(self.seconds, name, getattr(self.seconds, name) + value)


def memory_shares() -> dict[str, float]:
    """Shares in use of this machine's memory (``host``) and, on a GPU, of the device's (``device``, peak).

    In a container the memory is what its control group allows.
    """
    used, limit = container_memory() or (0, 1)
    found = {"host": max(psutil.virtual_memory().percent / 100, used / limit)}
    if torch.cuda.is_available():
        total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
        found["device"] = torch.cuda.max_memory_allocated() / total
    return found


def container_memory() -> tuple[int, int] | None:
    """Bytes in use and allowed by the control group; ``None`` where it allows what the machine has."""
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = ((group / name).read_text().strip() for name in ("memory.max", "memory.current"))
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return None if limit == "max" else (int(used) - int(stat["inactive_file"]), int(limit))
    except (OSError, ValueError, KeyError):  # no control group of version 2
        return None


def memory_now() -> dict[str, float]:
    """Memory of this process in MiB: ``host``, and on a GPU the peaks ``allocated`` and ``reserved``."""
    found = {"host": psutil.Process().memory_info().rss / 2**20}
    if torch.cuda.is_available():
        found["allocated"] = torch.cuda.max_memory_allocated() / 2**20
        found["reserved"] = torch.cuda.max_memory_reserved() / 2**20
    return found


def metrics_row(
    result: StepResult, window: Window, reports: list[RankReport], facts: dict[str, Any]
) -> dict[str, Any]:
    """The row of a step.

    Args:
        result: of the step itself; its loss, parts, rate and norm stand in the row, ``None`` for those that
            are no numbers (the step was left out).
        window: steps since the last row, this one included (``steps`` of them; the waits are their means);
            task losses, shares, rates and what the masks
            look like are over it: ``empty`` and ``soft_dice``, means over a task's predictions of what is
            there, ``full`` over all, and where targets are absent ``false_alarms``, their share with a mask.
        reports: of all ranks.
        facts: ``position``, ``epoch``, ``progress``, ``samples_seen``, ``quarantined``,
            ``skipped_steps``, ``world_size``, ``target_shares``.
    """
    total = max(1, sum(window.task_counts.values()))
    row = {
        "step": result.step,
        "steps": reports[0].steps,
        **facts,
        "loss": _number(result.loss),
        "losses": {name: _number(value) for name, value in result.parts.items()},
        "task_losses": _means(window.task_sums, window.loss_counts),
        **_looks(window),
        "lr": result.lr,
        "grad_norm": _number(result.grad_norm),
        **({"grad_norms": result.grad_norms} if result.grad_norms else {}),
        "shares": {task: window.task_counts[task] / total for task in TASKS},
        "rates": _rates(window),
        "waits": _waits(reports),
        "memory": _largest([report.memory for report in reports]),
        "memory_share": _largest([report.memory_share for report in reports]),
        "storage_retries": sum(report.retries for report in reports),
        "time": time.time(),
    }
    return row


def _looks(window: Window) -> dict[str, dict[str, float | None]]:
    """What the masks look like, by task; targets that are absent count apart."""
    watched, absent = window.watched, window.watched["absent"]
    present = {task: count - int(absent[task]) for task, count in window.loss_counts.items()}
    found = {
        "empty": _means(watched["empty"], present),
        "full": _means(watched["full"], window.loss_counts),
        "soft_dice": _means(watched["soft_dice"], present),
    }
    if any(absent.values()):
        found["false_alarms"] = _means(watched["false_alarms"], {task: int(n) for task, n in absent.items()})
    return found


def _largest(reports: list[dict[str, float]]) -> dict[str, float]:
    return {name: max(report.get(name, 0.0) for report in reports) for name in reports[0]}


def _means(sums: dict[str, float], counts: dict[str, int]) -> dict[str, float | None]:
    return {task: sums[task] / counts[task] if counts[task] else None for task in TASKS}


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _rates(window: Window) -> dict[str, float]:
    if not window.wall:
        return {}
    return {
        "samples_per_s": window.instructions / window.wall,
        "images_per_s": window.images / window.wall,
        "tokens_per_s": window.tokens / window.wall,
        "steps_per_s": window.steps / window.wall,
    }


def _waits(reports: list[RankReport]) -> dict[str, float]:
    """Mean seconds a step in each part: the longest wait for data of any rank, rank 0's other parts."""
    first = reports[0]
    steps = max(1, first.steps)
    parts = {
        "data": max(report.seconds.wait for report in reports) / steps,
        "forward": first.seconds.forward / steps,
        "backward": first.seconds.backward / steps,
        "optimizer": first.seconds.optimizer / steps,
    }
    return {**parts, "step": sum(parts.values())}
