"""Pictures of a run: losses, task shares, IoU histogram, and the result beside its yardsticks."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pipelines.evaluate.history import History, Series, smooth
from unigeoseg.tasks import TASKS

#: One colour a task, everywhere.
COLOURS: dict[str, str] = dict(zip(TASKS, ("#1f77b4", "#e6851e", "#2a9d5c"), strict=True))
_SPARE = ("#6a4c93", "#c1443c", "#4d4d4d", "#0b8a9e")


def new_figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Figure:
    """A figure in inches that needs no display and leaves no global state."""
    figure = Figure(figsize=(width, height), dpi=110, layout=layout)
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Writes a PNG without the date or versions, so that the same picture has the same bytes."""
    figure.savefig(path, metadata={"Software": None}, pil_kwargs={"compress_level": 3})
    return path


def plot_losses(history: History, path: Path) -> Path:
    """Total and parts, loss by task, learning rate, over the steps."""
    figure = new_figure(13, 3.9)
    parts, tasks, rate = figure.subplots(1, 3, width_ratios=(1, 1, 0.7))
    _lines(parts, history, {"total": ("loss",)} | {n: ("losses", n) for n in history.names("losses")})
    _lines(tasks, history, {n: ("task_losses", n) for n in history.names("task_losses")})
    rate.plot(history.steps, history.series("lr"), color="#4d4d4d")
    for axes, title in ((parts, "loss"), (tasks, "loss by task"), (rate, "learning rate")):
        axes.set(title=title, xlabel="step")
        axes.grid(alpha=0.3)
    rate.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    rate.set_ylim(bottom=0)
    return save(figure, path)


def plot_learning(history: History, path: Path) -> Path:
    """Whether it learns: gIoU of held-out and of training samples, empty masks and soft dice, by task."""
    figure = new_figure(13, 3.9)
    reached, empty, dice = figure.subplots(1, 3)
    for key, style, what in (("val", "-", "held-out"), ("train_eval", "--", "training")):
        for task in history.names(key):
            values = history.series(key, task, "gIoU")
            seen = np.isfinite(values)
            reached.plot(
                history.steps[seen], values[seen], style, marker="o", markersize=3, color=COLOURS.get(task),
                label=f"{task}, {what}",
            )  # fmt: skip
    _lines(empty, history, {task: ("empty", task) for task in history.names("empty")})
    _lines(dice, history, {task: ("soft_dice", task) for task in history.names("soft_dice")})
    for axes, title in (
        (reached, "gIoU on the way"),
        (empty, "share of empty masks (training)"),
        (dice, "soft dice (training)"),
    ):
        axes.set(title=title, xlabel="step")
        axes.set_ylim(-0.02, 1.02)
        axes.grid(alpha=0.3)
    if reached.lines:
        reached.legend(fontsize=7)
    return save(figure, path)


def plot_shares(history: History, path: Path) -> Path:
    """Target share of each task, and what the batches really held."""
    figure = new_figure(8, 3.9)
    axes = figure.subplots()
    names = history.names("target_shares") or history.names("shares")
    for name in names:
        colour = COLOURS.get(name, _SPARE[0])
        realised = history.series("shares", name)
        axes.plot(history.steps, realised, color=colour, alpha=0.55, linewidth=1.0, label=f"{name}, realised")
        target = history.series("target_shares", name)
        axes.plot(history.steps, target, color=colour, linestyle="--", linewidth=1.8, label=f"{name}, target")
    axes.set(title="task shares (progressive task scheduling)", xlabel="step", ylabel="share of the batch")
    axes.set_ylim(-0.02, 1.02)
    axes.grid(alpha=0.3)
    if names:
        axes.legend(fontsize=8, ncols=max(1, len(names)), loc="upper center")
    return save(figure, path)


def plot_iou_histogram(table: pa.Table, path: Path) -> Path:
    """Distribution of the samples' IoU, one panel a task, with its mean."""
    present = set(table["task"].to_pylist())
    tasks = [task for task in TASKS if task in present]
    figure = new_figure(1 + 4 * len(tasks), 3.4)
    for axes, task in zip(figure.subplots(1, len(tasks), sharex=True, squeeze=False)[0], tasks, strict=True):
        values = table.filter(pc.field("task") == task)["iou"].to_numpy()
        axes.hist(values, bins=np.linspace(0, 1, 21), color=COLOURS[task], alpha=0.8, edgecolor="white")
        mean = float(values.mean())
        axes.axvline(mean, color="black", linestyle="--", linewidth=1.2)
        axes.set_title(f"{task}: {len(values)} samples, gIoU {mean:.3f}")
        axes.set(xlabel="IoU", ylabel="samples")
        axes.grid(alpha=0.3)
    return save(figure, path)


def literal(text: str) -> str:
    """A text of others for matplotlib, which would set what stands between two dollar signs as a formula."""
    return text.replace("$", r"\$")


def plot_groups(groups: Mapping[str, Mapping[str, Any]], title: str, path: Path) -> Path:
    """A bar a group: its gIoU with the 95 % interval and the number of samples."""
    names = list(groups)
    values = [groups[name]["gIoU"] for name in names]
    limits = [groups[name]["ci95"]["gIoU"] for name in names]
    # The rounded limits of the interval may lie inside the exact mean by half a millionth.
    below = [max(0.0, v - low) for v, (low, _) in zip(values, limits, strict=True)]
    above = [max(0.0, high - v) for v, (_, high) in zip(values, limits, strict=True)]
    figure = new_figure(8.5, 1.3 + 0.28 * len(names))
    axes = figure.subplots()
    labels = [literal(name) for name in names]
    axes.barh(labels, values, xerr=[below, above], color="#4c86b8", ecolor="#333333", capsize=2)
    for place, (name, (_, high)) in enumerate(zip(names, limits, strict=True)):
        axes.text(
            max(high, 0.0) + 0.01,
            place,
            f"{values[place]:.3f}  n={groups[name]['n']}",
            va="center",
            fontsize=8,
        )
    axes.invert_yaxis()
    axes.tick_params(axis="y", labelsize=8)
    axes.set(title=title, xlabel="gIoU, with 95 % interval")
    axes.set_xlim(0, 1.25)  # room for the numbers
    axes.grid(alpha=0.3, axis="x")
    return save(figure, path)


#: Bars of the yardstick picture: key of the measures, label, colour.
_BARS = (
    ("gIoU", "this model", ""),
    ("untrained_gIoU", "untrained", "#9a9a9a"),
    ("all_foreground_gIoU", "all foreground", "#c9c9c9"),
    ("swap_own_gIoU", "own instruction (samples with a twin)", ""),
    ("swapped_gIoU", "the twin's instruction", "#c1443c"),
    ("category_gIoU", "oracle: whole category", "#d9c27c"),
    ("filled_box_gIoU", "oracle: filled box", "#a9b9d9"),
)


def plot_yardsticks(tasks: Mapping[str, Mapping[str, Any]], path: Path) -> Path:
    """The gIoU of each task beside the untrained model, the trivial mask, the swap and the oracles."""
    figure = new_figure(13, 3.2)
    panels = figure.subplots(1, max(1, len(tasks)), sharex=True, squeeze=False)[0]
    for axes, (task, measures) in zip(panels, tasks.items(), strict=False):
        bars = [
            (label, measures[key], colour) for key, label, colour in _BARS if measures.get(key) is not None
        ]
        labels, values, colours = zip(*bars, strict=True)
        drawn = axes.barh(labels, values, color=[c or COLOURS.get(task, _SPARE[0]) for c in colours])
        axes.bar_label(drawn, fmt="%.3f", padding=3, fontsize=8)
        axes.invert_yaxis()
        axes.tick_params(axis="y", labelsize=8)
        axes.set(title=task, xlabel="gIoU")
        axes.set_xlim(0, 1.18)  # room for the numbers
        axes.grid(alpha=0.3, axis="x")
    return save(figure, path)


def _span(history: History) -> int:
    return max(1, len(history) // 25)


def _lines(axes: Axes, history: History, paths: Mapping[str, tuple[str, ...]]) -> None:
    for i, (name, path) in enumerate(paths.items()):
        colour = COLOURS.get(name, _SPARE[i % len(_SPARE)])
        values: Series = history.series(*path)
        axes.plot(history.steps, values, color=colour, alpha=0.25, linewidth=0.8)
        axes.plot(history.steps, smooth(values, _span(history)), color=colour, label=name)
    axes.set_ylim(bottom=0)
    if paths:
        axes.legend(fontsize=8)
