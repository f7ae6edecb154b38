"""What planning costs: seconds per million positions and memory, by number of samples and by position.

Each size runs in a process of its own, so that its memory is its own. From ten million samples on, the task
column and the table of rows are files that are mapped, as for an index that does not fit into memory.
"""

import gc
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipelines.bench.own_memory import Watch, own_memory
from pipelines.models.machine import machine
from pipelines.plan.plan import Plan
from pipelines.plan.schedule import make_curve
from pipelines.plan.units import UnitTable
from unigeoseg.schedules.pts import Schedule

#: The paper's tasks, in samples of a million and a half.
_SHARES: Final = (480_949, 560_179, 119_214)
_BATCH: Final = 16
_LATE_STEP: Final = 10_000_000
_MAPPED_FROM: Final = 10_000_000
_PART: Final = 1 << 22
_GOAL: Final = 5e6


@dataclass(frozen=True)
class SyntheticIndex:
    """Tasks of ``samples`` rows, drawn in the paper's shares; each row an image of its own."""

    samples: int
    folder: Path
    store: str = "synthetic"
    split: str = "train"

    @cached_property
    def tasks(self) -> NDArray[np.int8]:
        """Task id of each row; int8."""
        out: NDArray[np.int8]
        if self.samples < _MAPPED_FROM:
            out = np.empty(self.samples, np.int8)
        else:
            out = np.memmap(self.folder / "tasks", np.int8, "w+", shape=(self.samples,))
        limits = np.cumsum(_SHARES)[:2] / sum(_SHARES)
        for begin in range(0, self.samples, _PART):
            part = out[begin : begin + _PART]
            drawn = np.random.default_rng(begin).random(len(part), np.float32)
            part[:] = (drawn >= limits[0]).astype(np.int8) + (drawn >= limits[1])
        return out

    @property
    def images(self) -> NDArray[np.int64]:
        """Number of the image of each row."""
        return np.arange(self.samples)

    @property
    def fingerprint(self) -> str:
        """Its size says it all."""
        return str(self.samples)

    def counts(self) -> tuple[int, int, int]:
        """Samples of each task."""
        found = np.zeros(3, np.int64)
        for begin in range(0, self.samples, _PART):
            found += np.bincount(self.tasks[begin : begin + _PART], minlength=3)
        return int(found[0]), int(found[1]), int(found[2])


def bench_plan(
    sizes: Sequence[int], positions: int = 1 << 20, tell: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """Measures each size.

    Args:
        sizes: numbers of samples.
        positions: how many are planned at a time.
        tell: is told what is being measured.

    Returns:
        ``rows`` (seconds and MiB; ``open`` is from the finished table to the first batch), ``ratios`` and
        ``machine``.
    """
    rows = []
    context = multiprocessing.get_context("spawn")
    for size in sizes:
        if tell is not None:
            tell(f"planning over {size} samples")
        with tempfile.TemporaryDirectory(prefix="unigeoseg-") as folder, context.Pool(1) as pool:
            rows.append(pool.apply(measure, (size, positions, folder)))
    ratios: dict[str, Any] = {}
    for row in rows:
        name = row["name"]
        ratios[f"{name}: late open / first open"] = row["open_late_s"] / row["open_first_s"]
        ratios[f"{name}: late / first seconds per million"] = row["late_s_per_million"] / row["s_per_million"]
        ratios[f"{name}: positions per second / goal"] = row["positions_per_s"] / _GOAL
    return {"rows": rows, "ratios": ratios, "machine": machine()}


def measure(samples: int, positions: int, folder: str) -> dict[str, Any]:
    """One size; to be run in a process of its own."""
    before = own_memory()["RssAnon"]
    with Watch() as watch:
        index = SyntheticIndex(samples, Path(folder))
        index.counts()
        started = time.perf_counter()
        file = Path(folder) / "rows" if samples >= _MAPPED_FROM else None
        units = UnitTable.build(index, 1, file)
        build = time.perf_counter() - started
        steps = max(2 * _LATE_STEP, positions // _BATCH * 4)
        curve = make_curve(Schedule(index.counts()), steps * _BATCH, units, index)

        def fresh() -> Plan:
            return Plan(index, units, curve, 0, _BATCH, steps)

        fresh().batch(7)  # what is loaded once is not the plan's cost
        opened = [min(_open(fresh(), step) for _ in range(3)) for step in (0, _LATE_STEP)]
        gc.collect()
        table_mib, first_peak = own_memory(), watch.peak()
        timed = [_plan(fresh(), step * _BATCH, positions) for step in (0, _LATE_STEP)]
        return {
            "name": f"{samples} samples",
            "samples": samples,
            "positions": positions,
            "build_s": build,
            "open_first_s": opened[0],
            "open_late_s": opened[1],
            "s_per_million": timed[0][0],
            "late_s_per_million": timed[1][0],
            "cpu_s_per_million": timed[0][1],
            "positions_per_s": 1e6 / timed[0][0],
            "cpu_positions_per_s": 1e6 / timed[0][1],
            "build_peak_mib": first_peak - before,
            "plan_peak_mib": watch.peak() - before,
            "mapped_mib": table_mib["RssFile"] + table_mib["RssShmem"],
            "table_bytes_per_sample": units.rows.nbytes / samples,
        }


def _open(plan: Plan, step: int) -> float:
    started = time.perf_counter()
    plan.batch(step)
    return time.perf_counter() - started


def _plan(plan: Plan, begin: int, count: int) -> tuple[float, float]:
    """Seconds, and processor seconds, per million positions; the best of three."""
    found = []
    for attempt in range(3):
        wall, cpu = time.perf_counter(), time.process_time()
        low = begin + attempt * count
        for at in range(low, low + count, 1 << 16):
            plan.positions(at, min(at + (1 << 16), low + count))
        found.append((time.perf_counter() - wall, time.process_time() - cpu))
    return min(w for w, _ in found) / count * 1e6, min(c for _, c in found) / count * 1e6
