"""A store's statistics as pictures."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipelines.curate.statistics import top
from pipelines.evaluate.plots import COLOURS, literal, new_figure

_CATEGORIES = 40


def draw_statistics(found: dict[str, Any]) -> dict[str, bytes]:
    """The pictures of :func:`pipelines.curate.statistics.statistics` by name, as PNG."""
    pictures: dict[str, Callable[[dict[str, Any]], Figure]] = {
        "tasks": _tasks,
        "categories": _categories,
        "sources": _sources,
        "words": _words,
        "mask_share": _shares,
        "centres": _centres,
        "resolution": _resolution,
    }
    return {name: _png(draw(found)) for name, draw in pictures.items()}


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _tasks(found: dict[str, Any]) -> Figure:
    """Samples of each task, divided by subtask."""
    counts = found["counts"]["subtask"]
    names = [(task, sub) for task in COLOURS for sub, row in counts.items() if row.get(task)]
    figure = new_figure(8, 1.2 + 0.36 * len(names))
    axes = figure.subplots()
    labels = [task if sub == "none" else literal(f"{task}, {sub}") for task, sub in names]
    values = [counts[sub][task] for task, sub in names]
    bars = axes.barh(labels, values, color=[COLOURS[task] for task, _ in names])
    axes.bar_label(bars, labels=[f"{value:,}" for value in values], padding=3, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.12 * max(values, default=1))
    axes.set(title="samples of each task", xlabel="samples")
    return figure


def _stacked(counts: dict[str, dict[str, int]], title: str) -> Figure:
    figure = new_figure(9, 1.5 + 0.24 * len(counts))
    axes = figure.subplots()
    left, labels = np.zeros(len(counts)), [literal(name) for name in counts]
    # A store of one sort of name alone keeps a bar of ordinary width.
    for task, colour in COLOURS.items():
        values = np.array([row.get(task, 0) for row in counts.values()], np.float64)
        if values.any():
            axes.barh(labels, values, left=left, color=colour, label=task, height=0.75)
            left += values
    for place, total in enumerate(left):
        axes.text(total, place, f" {total:,.0f}", va="center", fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.1 * max(left.max(), 1))  # room for the numbers
    axes.margins(y=0.02 if len(counts) > 4 else 0.4)
    axes.tick_params(axis="y", labelsize=8)
    axes.grid(alpha=0.3, axis="x")
    axes.set(title=title, xlabel="samples")
    figure.legend(fontsize=8, loc="outside lower center", ncols=3)
    return figure


def _categories(found: dict[str, Any]) -> Figure:
    counts = found["counts"]["category"]
    return _stacked(top(counts, _CATEGORIES), f"samples of the {len(counts)} categories")


def _sources(found: dict[str, Any]) -> Figure:
    return _stacked(top(found["counts"]["source"], _CATEGORIES), "samples of each source")


def _words(found: dict[str, Any]) -> Figure:
    """Number of words of the instructions, with the mean."""
    words = found["words"]
    figure = new_figure(1 + 4 * len(words), 3.2)
    most = max((max(map(int, counts)) for counts in words.values()), default=1)
    for axes, (task, counts) in zip(
        figure.subplots(1, len(words), sharex=True, squeeze=False)[0], words.items(), strict=True
    ):
        numbers = np.array([int(n) for n in counts])
        samples = np.array(list(counts.values()))
        step = max(1, most // 40)
        axes.hist(
            numbers, weights=samples, bins=np.arange(0.5, most + 0.5 + step, step), color=COLOURS[task],
            edgecolor="white", linewidth=0.5,
        )  # fmt: skip
        mean = float((numbers * samples).sum() / samples.sum())
        axes.axvline(mean, color="black", linestyle="--", linewidth=1.2)
        axes.set_title(f"{task}: {mean:.2f} words in the mean")
        axes.set(xlabel="words of the instruction", ylabel="samples")
        axes.grid(alpha=0.3)
    return figure


def _shares(found: dict[str, Any]) -> Figure:
    """Share of the image that the masks fill, on a logarithmic axis."""
    edges = np.array(found["mask_share"]["edges"])
    tasks = {task: np.array(counts) for task, counts in found["mask_share"].items() if task != "edges"}
    figure = new_figure(8, 3.6)
    axes = figure.subplots()
    used = np.flatnonzero(sum(tasks.values())) if tasks else np.array([], int)
    for task, counts in tasks.items():
        axes.stairs(
            counts / max(1, counts.sum()), edges * 100, color=COLOURS[task], label=task, linewidth=1.8
        )
    axes.set_xscale("log")
    if len(used):
        axes.set_xlim(edges[max(0, used[0] - 1)] * 100, edges[min(len(edges) - 1, used[-1] + 2)] * 100)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g} %")
    axes.set(title="share of the image that a mask fills", xlabel="share", ylabel="share of the samples")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8)
    return figure


def _centres(found: dict[str, Any]) -> Figure:
    """Where masks lie in the image: the middles of their boxes."""
    maps = found["centres"]
    figure = new_figure(0.8 + 3.6 * len(maps), 3.6)
    panels = figure.subplots(1, max(1, len(maps)), squeeze=False)[0]
    for axes, (task, counts) in zip(panels, maps.items(), strict=False):
        values = _coarser(np.array(counts, np.float64))
        shown = np.ma.masked_equal(values, 0)
        axes.set_facecolor("#e9ecf1")
        norm = LogNorm(1, max(2.0, values.max())) if values.max() > 50 else None
        image = axes.imshow(shown, extent=(0, 1, 1, 0), cmap="viridis", norm=norm, interpolation="nearest")
        figure.colorbar(image, ax=axes, shrink=0.8, format="{x:,.0f}", ticks=_ticks(values.max()))
        axes.set_title(f"{task}: {int(values.sum()):,} masks", fontsize=10)
        axes.set(xlabel="x", ylabel="y")
    figure.suptitle("middles of the masks in the image (grey: none)", fontsize=11)
    return figure


def _coarser(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cells large enough that one holds some masks in the mean; few masks on a fine map are only noise."""
    while len(values) % 2 == 0 and values.sum() < 4 * values.size:
        values = values[::2, ::2] + values[1::2, ::2] + values[::2, 1::2] + values[1::2, 1::2]
    return values


def _ticks(most: float) -> list[int]:
    """A few whole numbers of masks, the highest among them."""
    if most > 50:
        return [10**n for n in range(int(np.log10(most)) + 1)]
    return sorted({1, int(most)} | {round(1 + (most - 1) * part / 3) for part in (1, 2)})


def _resolution(found: dict[str, Any]) -> Figure:
    """Images of each size."""
    sizes = found["resolution"]
    figure = new_figure(8, 3.2)
    axes = figure.subplots()
    if len(sizes) <= 12:
        labels = [f"{row['width']} x {row['height']}" for row in sizes]
        bars = axes.barh(labels, [row["images"] for row in sizes], color="#5b7ea6")
        axes.bar_label(bars, fmt="{:,.0f}", padding=3, fontsize=8)
        axes.invert_yaxis()
        axes.margins(x=0.12, y=0.05 if len(sizes) > 4 else 0.5)
        axes.set(xlabel="images")
    else:
        area = np.array([row["images"] for row in sizes], np.float64)
        axes.scatter(
            [row["width"] for row in sizes], [row["height"] for row in sizes],
            s=10 + 190 * area / area.max(), color="#5b7ea6", alpha=0.6,
        )  # fmt: skip
        axes.set(xlabel="width in pixels", ylabel="height in pixels")
        axes.grid(alpha=0.3)
    axes.set_title(f"sizes of the images ({len(sizes)} different)")
    return figure
