"""Runs side by side: what differs in their settings, their metrics per task, their curves in one picture."""

import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from pipelines.evaluate.history import smooth
from pipelines.evaluate.plots import literal
from pipelines.experiments.records import RunRecord
from unigeoseg.errors import UserError
from unigeoseg.tasks import TASKS

#: Where a smaller value is the better one.
_SMALLER = ("loss", "wait", "seconds", "memory", "quarantined", "retries")
#: Settings that name a run rather than shape it.
_UNTOLD = ("tracking.parent", "tracking.tags", "name")


def compare_runs(records: Sequence[RunRecord], best: str | None = None) -> dict[str, Any]:
    """The content of ``compare.json``.

    Args:
        records: at least one.
        best: metric that decides which run is best; ``None`` names none.

    Raises:
        UserError: no run has that metric; lists those that there are.
    """
    keys = sorted({key for record in records for key in record.params if not key.startswith(_UNTOLD)})
    differing = {
        key: [record.params.get(key) for record in records]
        for key in keys
        if len({record.params.get(key) for record in records}) > 1
    }
    names = sorted({name for record in records for name in record.final})
    result: dict[str, Any] = {
        "runs": [
            {
                "name": r.name,
                "source": r.source,
                "state": r.state,
                "checkpoint": r.checkpoint or (r.checkpoints[-1] if r.checkpoints else None),
                "checkpoints": r.checkpoints,
            }
            for r in records
        ],
        "differing": differing,
        "metrics": {
            name: {
                "final": [record.final.get(name) for record in records],
                "best": [_best_of(record, name) for record in records],
            }
            for name in names
        },
        "best": None,
    }
    if best is not None:
        result["best"] = _winner(records, best, names)
    return result


def _winner(records: Sequence[RunRecord], metric: str, names: Sequence[str]) -> dict[str, Any]:
    have = [(i, record) for i, record in enumerate(records) if metric in record.final]
    if not have:
        measured = [name for name in names if name in {f"val/{task}/gIoU" for task in TASKS}]
        near = get_close_matches(metric, names, n=3, cutoff=0.8) or measured or list(names)[:12]
        raise UserError(
            f"--best {metric}: no run has it; there are, among others, {', '.join(near) or 'none'}"
        )
    smaller = smaller_is_better(metric)
    index, record = min(have, key=lambda pair: pair[1].final[metric] * (1 if smaller else -1))
    step, value = _best_point(record, metric)
    return {
        "metric": metric,
        "run": record.name,
        "index": index,
        "final": record.final[metric],
        "best_value": value,
        "best_step": step,
        "checkpoint": _checkpoint_near(record, step),
    }


def smaller_is_better(metric: str) -> bool:
    """Whether a smaller value of it is the better one."""
    return any(word in metric for word in _SMALLER)


def _best_point(record: RunRecord, metric: str) -> tuple[int | None, float]:
    points: list[tuple[int | None, float]] = [
        (s, v) for s, v in record.curves.get(metric, []) if np.isfinite(v)
    ]
    points.append((None, record.final[metric]))
    return min(points, key=lambda p: p[1] * (1 if smaller_is_better(metric) else -1))


def _best_of(record: RunRecord, metric: str) -> float | None:
    return _best_point(record, metric)[1] if metric in record.final else None


def _checkpoint_near(record: RunRecord, step: int | None) -> str | None:
    """The first checkpoint at or after the step, else the newest."""
    if not record.checkpoints:
        return record.checkpoint
    later = [c for c in record.checkpoints if step is not None and int(c.removeprefix("step-")) > step]
    return later[0] if later else record.checkpoints[-1]


def compare_markdown(result: Mapping[str, Any]) -> str:
    """The comparison as people read it."""
    runs = result["runs"]
    head = "| " + " | ".join(["", *(run["name"] for run in runs)]) + " |\n" + "|---" * (1 + len(runs)) + "|"
    lines = ["# Runs side by side", "", head]
    lines.append(_row("state", [run["state"] for run in runs]))
    lines.append(_row("checkpoint", [run["checkpoint"] for run in runs]))
    lines += ["", "## Settings that differ", "", head]
    lines += [_row(key, values) for key, values in result["differing"].items()] or [
        _row("none", [""] * len(runs))
    ]
    lines += ["", "## Metrics (final; best in brackets where another)", "", head]
    for name, values in result["metrics"].items():
        if name.startswith(("val/", "train/loss")):
            pairs = zip(values["final"], values["best"], strict=True)
            lines.append(_row(name, [_value(final, best) for final, best in pairs]))
    if result["best"]:
        best = result["best"]
        where = f", checkpoint {best['checkpoint']}" if best["checkpoint"] else ""
        lines += ["", f"Best by {best['metric']}: {best['run']} ({best['final']:.4f}{where})."]
    return "\n".join(lines) + "\n"


def _row(name: str, values: Sequence[Any]) -> str:
    return "| " + " | ".join([name, *("–" if v is None else str(v) for v in values)]) + " |"


def _value(final: float | None, best: float | None) -> str | None:
    if final is None:
        return None
    return f"{final:.4f}" if best is None or best == final else f"{final:.4f} ({best:.4f})"


def write_comparison(result: Mapping[str, Any], records: Sequence[RunRecord], folder: Path) -> list[Path]:
    """Writes ``compare.json``, ``compare.md`` and ``compare.png``; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"compare.{end}" for end in ("json", "md", "png")]
    paths[0].write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    paths[1].write_text(compare_markdown(result), encoding="utf-8")
    plot_curves(records, paths[2])
    return paths


def plot_curves(records: Sequence[RunRecord], path: Path) -> None:
    """Total loss, loss of each task, and validation gIoU where there is one: all runs overlaid."""
    panels = ["train/loss", *(f"train/loss/{task}" for task in TASKS)]
    measured = [f"val/{task}/gIoU" for task in TASKS if any(f"val/{task}/gIoU" in r.final for r in records)]
    names = panels + measured
    columns = 4
    rows = -(-len(names) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(3.6 * columns, 2.7 * rows), layout="constrained", squeeze=False
    )
    for axis in axes.flat[len(names) :]:
        axis.axis("off")
    for axis, name in zip(axes.flat, names, strict=False):
        for i, record in enumerate(records):
            _draw(axis, record, name, f"C{i % 10}")
        axis.set_title(name, fontsize=9)
        axis.tick_params(labelsize=7)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=min(4, max(1, len(labels))),
        fontsize=8,
        frameon=False,
    )
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _draw(axis: Any, record: RunRecord, name: str, color: str) -> None:
    curve = record.curves.get(name, [])
    if curve:
        steps, values = (np.array(column, dtype=np.float64) for column in zip(*curve, strict=True))
        if name.startswith("train/"):
            axis.plot(steps, values, color=color, alpha=0.2, linewidth=0.8)
            values = smooth(values, max(1, len(values) // 20))
        axis.plot(steps, values, color=color, linewidth=1.4, label=literal(record.name))
    if name.startswith("val/") and name in record.final:
        axis.axhline(record.final[name], color=color, linestyle=":", linewidth=1.2)
