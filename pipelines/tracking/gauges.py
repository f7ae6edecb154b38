"""A run's numbers for Prometheus, through Ray's metrics: each node's agent serves what its processes set.

Ray puts ``ray_`` before each name. The driver sets them from the rows that the workers send, so that a run
has one series of each, however many workers it has or had.
"""

import time
from collections.abc import Mapping
from typing import Any

from ray.util.metrics import Gauge

#: Name without ``unigeoseg_`` -> what it is, and its labels beside ``run``.
METRICS: dict[str, tuple[str, tuple[str, ...]]] = {
    "step": ("Steps done.", ()),
    "progress": ("Share of the plan's steps that is done.", ()),
    "workers": ("Training workers; an elastic run has more or fewer as nodes come and go.", ()),
    "loss": ("Loss of the newest logged step.", ()),
    "task_loss": ("Mean loss of a task's samples since the row before.", ("task",)),
    "learning_rate": ("Learning rate.", ()),
    "gradient_norm": ("Gradient norm before clipping.", ()),
    "samples_per_second": ("Instructions trained on a second, all workers together.", ()),
    "images_per_second": ("Images trained on a second, all workers together.", ()),
    "mfu": ("Model FLOPs utilisation; absent where the device's peak is unknown.", ()),
    "step_seconds": ("Seconds of a step in a part (data: the longest wait of any worker).", ("part",)),
    "wait_share": ("Share of a step that is spent waiting for data.", ()),
    "task_share": ("Share of a task among the instructions: target and realised.", ("task", "kind")),
    "goodput": ("Seconds of steps that were kept, waits for data left out, over wall seconds.", ()),
    "memory_mib": ("Memory of the worker that uses most.", ("kind",)),
    "quarantined": ("Bad records that were replaced so far.", ()),
    "storage_retries": ("Reads of the object store that were repeated so far.", ()),
    "checkpoint_stall_seconds": ("Seconds that the newest checkpoint held training.", ()),
}


class Exported:
    """The gauges of one run.

    Args:
        run: value of the label ``run``.
        clock: seconds, rising.
    """

    def __init__(self, run: str) -> None:
        self._run = run
        self._gauges = {
            name: Gauge(f"unigeoseg_{name}", description=text, tag_keys=("run", *labels))
            for name, (text, labels) in METRICS.items()
        }
        self._goodput = Goodput(time.monotonic())

    def row(self, row: dict[str, Any]) -> None:
        """Takes a logged step."""
        values = numbers(row)
        values.append(("goodput", {}, self._goodput.after(row, time.monotonic())))
        for name, labels, value in values:
            self._gauges[name].set(value, tags={"run": self._run, **labels})


class Goodput:
    """Share of the wall time that went into steps that were kept.

    A step that is repeated after a failure counts once, and a step's wait for data not at all.

    Args:
        began: when the driver began, in seconds.
    """

    def __init__(self, began: float) -> None:
        self._began, self._useful, self._done = began, 0.0, -1

    def after(self, row: dict[str, Any], now: float) -> float:
        """The share up to ``now``, when ``row`` has arrived."""
        if self._done < 0:  # a resumed run begins with the steps since its checkpoint
            self._done = row["step"] - 1
        fresh = max(0, row["step"] - self._done)
        self._done += fresh
        self._useful += fresh * (row["waits"]["step"] - row["waits"]["data"])
        return self._useful / max(now - self._began, 1e-9)


def numbers(row: dict[str, Any]) -> list[tuple[str, Mapping[str, str], float]]:
    """A row as ``(name, labels, value)``; what a row lacks is left out."""
    waits, rates = row["waits"], row["rates"]
    single = {
        "step": row["step"] + 1,
        "progress": row["progress"],
        "workers": row["world_size"],
        "loss": row["loss"],
        "learning_rate": row["lr"],
        "gradient_norm": row["grad_norm"],
        "samples_per_second": rates.get("samples_per_s"),
        "images_per_second": rates.get("images_per_s"),
        "mfu": rates.get("mfu"),
        "wait_share": waits["data"] / max(waits["step"], 1e-9),
        "quarantined": row["quarantined"],
        "storage_retries": row["storage_retries"],
        "checkpoint_stall_seconds": row.get("checkpoint", {}).get("stall_s"),
    }
    found: list[tuple[str, Mapping[str, str], float | None]] = [(name, {}, v) for name, v in single.items()]
    found += [("task_loss", {"task": task}, v) for task, v in row["task_losses"].items()]
    found += [("task_share", {"task": t, "kind": "target"}, v) for t, v in row["target_shares"].items()]
    found += [("task_share", {"task": t, "kind": "realised"}, v) for t, v in row["shares"].items()]
    found += [("step_seconds", {"part": part}, v) for part, v in waits.items() if part != "step"]
    found += [("memory_mib", {"kind": kind}, v) for kind, v in row["memory"].items()]
    return [(name, labels, float(value)) for name, labels, value in found if value is not None]
