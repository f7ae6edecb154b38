"""The table of an ablation: mean and spread over seeds, differences to the baseline, the paper's own."""

import csv
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import matplotlib.pyplot as plt
from scipy.stats import t as student

from pipelines.evaluate.plots import literal
from pipelines.experiments.grid import Cell, Grid
from unigeoseg.tasks import TASKS

#: A difference counts when the confidence interval of its mean over seeds (Student's t) leaves zero out.
_CONFIDENCE = 0.95


class _Run(Protocol):
    @property
    def name(self) -> str: ...

    cell: Cell
    seed: int


def ablation_table(
    grid: Grid,
    summaries: Mapping[str, dict[str, Any] | None],
    runs: Sequence[Any],
    errors: Mapping[str, str],
) -> dict[str, Any]:
    """The content of ``table.json``; all figures are gIoU in percent.

    Differences are paired: a row's run minus the baseline's run with the same seed. ``effect`` compares them
    with the paper's: ``seen`` (same sign, and zero outside the 95 % interval of Student's t), ``opposite``,
    ``not seen``, or ``None`` where the paper's figure is not known or there are fewer than two seeds.

    Args:
        grid: the declared table.
        summaries: run name to ``summary.json``; ``None`` for a run that is not finished.
        runs: of the ablation, each with ``name``, ``cell`` and ``seed``.
        errors: run name to error.
    """
    found: dict[str, dict[int, dict[str, float]]] = {cell.name: {} for cell in grid.cells}
    for run in runs:
        summary = summaries[run.name]
        if summary is not None:
            found[run.cell.name][run.seed] = {
                task: 100.0 * float(values["gIoU"]) for task, values in summary["tasks"].items()
            }
    rows = []
    for cell in grid.cells:
        paper_delta = grid.delta_of_paper(cell)
        rows.append(
            {
                "name": cell.name,
                "runs": [run.name for run in runs if run.cell is cell],
                "tasks": {
                    task: _figures(
                        {s: v[task] for s, v in found[cell.name].items() if task in v},
                        {s: v[task] for s, v in found[grid.baseline].items() if task in v},
                        None if cell.name == grid.baseline else paper_delta.get(task),
                        cell.paper.get(task),
                        cell.name == grid.baseline,
                    )
                    for task in TASKS
                },
            }
        )
    return {
        "table": grid.table,
        "title": grid.title,
        "note": grid.note,
        "baseline": grid.baseline,
        "seeds": sorted({run.seed for run in runs}),
        "rows": rows,
        "unfinished": [run.name for run in runs if summaries[run.name] is None],
        "failed": dict(errors),
    }


def _figures(
    values: Mapping[int, float],
    base: Mapping[int, float],
    paper_delta: float | None,
    paper: float | None,
    is_baseline: bool,
) -> dict[str, Any]:
    deltas = [values[s] - base[s] for s in sorted(values) if s in base]
    delta, spread = (None, None) if is_baseline else _mean_sd(deltas)
    mean, sd = _mean_sd(list(values.values()))
    return {
        "n": len(values),
        "mean": mean,
        "sd": sd,
        "delta": delta,
        "delta_sd": spread,
        "paper": paper,
        "paper_delta": paper_delta,
        "effect": _effect(deltas, paper_delta),
    }


def _mean_sd(values: Sequence[float]) -> tuple[float | None, float | None]:
    if not values:
        return None, None
    sd = statistics.stdev(values) if len(values) > 1 else None
    return round(statistics.fmean(values), 4), None if sd is None else round(sd, 4)


def _effect(deltas: Sequence[float], paper_delta: float | None) -> str | None:
    if paper_delta is None or len(deltas) < 2:
        return None
    mean, error = statistics.fmean(deltas), statistics.stdev(deltas) / math.sqrt(len(deltas))
    if abs(mean) <= float(student.ppf((1 + _CONFIDENCE) / 2, len(deltas) - 1)) * error:
        return "not seen"
    return "seen" if mean * paper_delta > 0 else "opposite"


def table_markdown(result: Mapping[str, Any]) -> str:
    """The table as people read it."""
    seeds = len(result["seeds"])
    lines = [
        f"# Table {result['table']}: {result['title']}",
        "",
        f"{result['note'].capitalize()}. gIoU in percent on held-out scenes, mean ± standard deviation of "
        f"{seeds} seed{'s' if seeds > 1 else ''}; Δ against “{result['baseline']}”, paired by seed. Paper: "
        "its figures, on its data and at its size, for the direction of an effect only; – where not at hand.",
        "",
        "| " + " | ".join(["row", *(f"{t} | Δ | paper Δ | effect" for t in TASKS)]) + " |",
        "|" + "---|" * (1 + 4 * len(TASKS)),
    ]
    for row in result["rows"]:
        cells = [row["name"]]
        for task in TASKS:
            figures = row["tasks"][task]
            cells += [
                _plus_minus(figures["mean"], figures["sd"]),
                _plus_minus(figures["delta"], figures["delta_sd"], sign=True),
                _signed(figures["paper_delta"]),
                figures["effect"] or "–",
            ]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", *_verdicts(result)]
    if result["unfinished"]:
        lines += ["", "Not finished: " + ", ".join(result["unfinished"]) + "."]
    lines += [f"Failed: {name}: {error}" for name, error in result["failed"].items()]
    return "\n".join(lines) + "\n"


def _verdicts(result: Mapping[str, Any]) -> list[str]:
    by_effect: dict[str, list[str]] = {}
    for row in result["rows"]:
        for task in TASKS:
            effect = row["tasks"][task]["effect"]
            if effect:
                by_effect.setdefault(effect, []).append(f"{row['name']} on {task}")
    said = {
        "seen": "Effects of the paper that are seen here",
        "not seen": "Not seen (zero lies in the 95 % interval of the mean difference)",
        "opposite": "The other way round",
    }
    return [f"{said[e]}: {', '.join(by_effect[e])}." for e in said if e in by_effect]


def _plus_minus(mean: float | None, sd: float | None, sign: bool = False) -> str:
    if mean is None:
        return "–"
    text = f"{mean:+.2f}" if sign else f"{mean:.2f}"
    return text if sd is None else f"{text} ± {sd:.2f}"


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.2f}"


def write_table(result: Mapping[str, Any], folder: Path) -> list[Path]:
    """Writes ``table.json``, ``table.md``, ``table.csv`` and ``table.png``; returns their paths."""
    paths = [folder / f"table.{end}" for end in ("json", "md", "csv", "png")]
    paths[0].write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    paths[1].write_text(table_markdown(result), encoding="utf-8")
    with paths[2].open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        keys = ("n", "mean", "sd", "delta", "delta_sd", "paper", "paper_delta", "effect")
        writer.writerow(["row", "task", *keys])
        for row in result["rows"]:
            for task in TASKS:
                writer.writerow([row["name"], task, *(row["tasks"][task][key] for key in keys)])
    plot_table(result, paths[3])
    return paths


def plot_table(result: Mapping[str, Any], path: Path) -> None:
    """Rows as bars with their spread, a panel for each task."""
    rows = result["rows"]
    height = 1.6 + 0.42 * len(rows)
    figure, axes = plt.subplots(1, len(TASKS), figsize=(11, height), sharey=True, layout="constrained")
    for axis, task in zip(axes, TASKS, strict=True):
        figures = [row["tasks"][task] for row in rows]
        means = [f["mean"] or 0.0 for f in figures]
        spread = [f["sd"] or 0.0 for f in figures]
        colors = ["#8a8a8a" if row["name"] == result["baseline"] else "#2f6f9f" for row in rows]
        axis.barh(range(len(rows)), means, xerr=spread, color=colors, ecolor="#222222", capsize=3)
        for y, f in enumerate(figures):
            label = "–" if f["mean"] is None else f"{f['mean']:.1f}"
            label += "" if f["delta"] is None else f" ({f['delta']:+.1f})"
            axis.text((f["mean"] or 0.0) + (f["sd"] or 0.0), y, f" {label}", va="center", fontsize=8)
        axis.set_xlim(0, max(1.0, 1.35 * max(m + s for m, s in zip(means, spread, strict=True))))
        axis.set_title(task)
        axis.set_xlabel("gIoU, %")
    axes[0].set_yticks(range(len(rows)), [literal(row["name"]) for row in rows])
    axes[0].invert_yaxis()
    figure.suptitle(
        f"Table {result['table']}: {result['title']} (Δ against {result['baseline']})", fontsize=11
    )
    figure.savefig(path, dpi=120)
    plt.close(figure)
