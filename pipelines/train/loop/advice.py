"""What a person should know about a run while it goes: warnings that say what to do, and sums for its end."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pipelines.runs.learning import Learning

#: Logged steps that a judgement on data and shares rests on.
WINDOW = 20
#: Share of the time waited for data above which training is bound by it.
WAIT_LIMIT = 0.25
#: Logged steps in a row after which the rank that the others wait for is named.
SLOW_ROWS = 5
#: Share of a machine's or device's memory in use; Ray ends processes from 0.95 of the machine's on.
MEMORY_LIMIT = 0.9
#: Graphs more in that time above which a run is still compiling. A first change of shape makes some.
GRAPHS_LIMIT = 8
#: Difference between realised and target share of a task, in shares of all instructions.
SHARE_LIMIT = 0.05

_DATA = (
    "training waited for data {wait:.0%} of the last {rows} logged steps: raise data.prefetch_batches, let "
    "other CPUs decode (data.decode=actors, data.actors), and look at `unigeoseg bench data`"
)
_MEMORY = {
    "host": "the fullest machine has {share:.0%} of its memory in use, Ray ends workers from 95 % on: lower "
    "train.micro_batch, data.prefetch_batches or data.block_positions, set checkpoint.asynchronous=false, or "
    "train on more machines with ZeRO",
    "device": "the fullest GPU had {share:.0%} of its memory allocated: lower train.micro_batch, set "
    "train.activation_checkpointing=true, raise engine.zero_stage, or set engine.offload_optimizer=true",
}
_SLOW = (
    "all ranks wait for rank {rank} on {host}: its data and forward pass take {times:.1f} times as long as "
    "the middle rank's ({data:.0%} of that is waiting for data): look at what else runs there, at its disk "
    "and network, and at its GPU's clocks; Ray can do without the node (`ray drain-node`)"
)
_COMPILING = (
    "torch.compile made {graphs:.0f} more graphs in the last {rows} logged steps ({seconds:.0f} s so far): "
    "sequences come in ever new shapes; data.length_multiple=32 or 64 makes them few"
)
_SHARES = (
    "{task} had {real:.0%} of the instructions of the last {rows} logged steps, its target is {target:.0%}: "
    "its images hold another number of instructions than the mean; set data.instructions_per_image=1 for "
    "exact shares, or correct them with pts.base"
)


@dataclass
class Advice:
    """Looks at metrics rows as they come; each warning is given once a run.

    Args:
        warn: gets a warning.
    """

    warn: Callable[[str], None]
    _rows: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=WINDOW))
    _said: set[str] = field(default_factory=set)
    _learning: Learning = field(default_factory=Learning)

    def row(self, row: dict[str, Any]) -> None:
        """Takes a logged step."""
        if self._rows and row["step"] <= self._rows[-1]["step"]:
            self._rows.clear()  # restarted workers replay steps, and start slowly
        self._rows.append(row)
        for kind, text in self._learning.row(row):
            self._say(kind, text)
        self._slow_rank()
        for kind, share in row.get("memory_share", {}).items():
            if share >= MEMORY_LIMIT:
                self._say(kind, _MEMORY[kind].format(share=share))
        if len(self._rows) == WINDOW:
            self._data()
            self._shares()
            self._compiling()

    def _slow_rank(self) -> None:
        last = [row.get("slowest") for row in list(self._rows)[-SLOW_ROWS:]]
        told = [slow for slow in last if slow is not None]
        if len(told) == SLOW_ROWS and len({slow["rank"] for slow in told}) == 1:
            rank, host = told[-1]["rank"], told[-1]["host"]
            times, data = (sum(slow[key] for slow in told) / SLOW_ROWS for key in ("times", "data"))
            self._say(f"slow rank {rank}", _SLOW.format(rank=rank, host=host, times=times, data=data))

    def _data(self) -> None:
        rows = list(self._rows)[1:]  # a run's first one waited for the start of its stream
        waited = sum(_seconds(row, "data") for row in rows)
        wait = waited / max(1e-9, sum(_seconds(row, "step") for row in rows))
        if wait > WAIT_LIMIT:
            self._say("data", _DATA.format(wait=wait, rows=WINDOW))

    def _compiling(self) -> None:
        first, last = (row.get("compiled") for row in (self._rows[0], self._rows[-1]))
        if first and last and last["graphs"] - first["graphs"] > GRAPHS_LIMIT:
            more = last["graphs"] - first["graphs"]
            self._say("compiling", _COMPILING.format(graphs=more, rows=WINDOW, seconds=last["seconds"]))

    def _shares(self) -> None:
        for task in self._rows[-1]["shares"]:
            weights = [row.get("steps", 1) for row in self._rows]
            real, target = (
                sum(row[key][task] * n for row, n in zip(self._rows, weights, strict=True)) / sum(weights)
                for key in ("shares", "target_shares")
            )
            if abs(real - target) > SHARE_LIMIT:
                self._say("shares", _SHARES.format(task=task, real=real, target=target, rows=WINDOW))

    def _say(self, kind: str, text: str) -> None:
        if kind not in self._said:
            self._said.add(kind)
            self.warn(text)


def _seconds(row: dict[str, Any], part: str) -> float:
    """What a part of all the steps of a row took; a row holds means, and not each is of as many steps."""
    return float(row["waits"][part]) * row.get("steps", 1)


@dataclass
class Totals:
    """What a training took, from its metrics rows: the numbers of its final summary.

    Attributes:
        warnings: what was warned of on the way.
        first: when the first of them was logged, seconds since the epoch.
    """

    warnings: list[str] = field(default_factory=list)
    first: float | None = None
    _paced: float = 0.0
    _samples: float = 0.0
    _seconds: float = 0.0
    _waited: float = 0.0
    _memory: dict[str, float] = field(default_factory=dict)
    _last: dict[str, Any] = field(default_factory=dict)

    def row(self, row: dict[str, Any]) -> None:
        """Takes a logged step in; replayed ones count again, because they took their time."""
        seconds = _seconds(row, "step")
        self.first = row["time"] if self.first is None else self.first
        if row["rates"]:
            self._paced += seconds
            self._samples += row["rates"]["samples_per_s"] * seconds
        self._waited += _seconds(row, "data")
        self._seconds += seconds
        for name, value in row["memory"].items():
            self._memory[name] = max(value, self._memory.get(name, 0.0))
        self._last = row

    def plain(self) -> dict[str, Any]:
        """As ``summary.json`` has it; memory in MiB, the peak of any worker."""
        if not self._last:
            return {}
        return {
            "loss": self._last["loss"],
            "samples_per_s": round(self._samples / self._paced, 2) if self._paced else None,
            "wait_share": round(self._waited / max(1e-9, self._seconds), 4),
            "memory_mib": {name: round(value) for name, value in self._memory.items()},
            "quarantined": self._last["quarantined"],
            "storage_retries": self._last["storage_retries"],
            "warnings": self.warnings,
        }


def in_words(summary: dict[str, Any]) -> str:
    """The end of a training in a few lines, from ``summary.json``."""
    minutes, seconds = divmod(round(summary["train_seconds"]), 60)
    parts = [f"{summary['steps']} steps, {summary['samples_seen']} samples in {minutes} min {seconds} s"]
    watched = summary.get("training", {})
    if watched:
        if watched["samples_per_s"]:
            parts.append(f"{watched['samples_per_s']:.1f} samples/s")
        if "first_step_seconds" in watched:
            parts.append(f"first step after {watched['first_step_seconds']:.0f} s")
        parts.append(f"waiting for data {watched['wait_share']:.0%}")
        parts.append(f"peak memory {memory_in_words(watched['memory_mib'])}")
    odd = [
        f"{count} {what}"
        for what, count in (
            ("steps left out (diagnostics/)", summary.get("skipped_steps", 0)),
            ("bad samples replaced (quarantine.jsonl)", watched.get("quarantined", 0)),
            ("logged steps that MLflow lacks (mlflow_unsent.jsonl)", summary["mlflow_unsent"]),
        )
        if count
    ]
    lines = [", ".join(parts), *([", ".join(odd)] if odd else [])]
    if summary.get("stopped"):
        lines.append(f"ended early: {summary['stopped']}")
    if best := summary.get("best"):
        lines.append(
            f"best {best['metric']} {best['value']:.4f} at step {best['step']} ({best['checkpoint']})"
        )
        exported = summary["exported"]
        lines.append(f"exported: step {exported['step']}, {exported['why']}")
    return "\n".join([*lines, *(f"warning: {text}" for text in summary.get("warnings", ()))])


def memory_in_words(memory: dict[str, float]) -> str:
    """``1.2 GiB``, with a GPU ``1.2 GiB, GPU 17.0 GiB``."""
    text = f"{memory['host'] / 1024:.1f} GiB"
    return text + (f", GPU {memory['allocated'] / 1024:.1f} GiB" if "allocated" in memory else "")
