"""Task shares over a run as a picture: the target, and what the plan really draws."""

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pipelines.plan.plan import Plan
from unigeoseg.tasks import TASKS

_POINTS = 100
_COLOURS = ("#1b6ca8", "#d1782b", "#3c8d40")


def draw_shares(plan: Plan, path: Path) -> None:
    """Writes a PNG: shares of each task over the steps, over instructions; dots are what the plan draws.

    Raises:
        OSError: the file cannot be written.
    """
    edges = np.unique(np.linspace(0, plan.steps, min(_POINTS, plan.steps) + 1).astype(int))
    counts = np.array([plan.counts_at(int(e) * plan.batch_size) for e in edges], np.float64)
    drawn = np.diff(counts, axis=0) * [1 / float(plan.units.per_sample(t)) for t in range(3)]
    drawn /= drawn.sum(axis=1, keepdims=True)
    middles = (edges[:-1] + edges[1:]) / 2
    # Steps of a schedule fall between the middles: the target is sampled at every edge instead.
    last = plan.steps * plan.batch_size - 1
    target = np.array([plan.share_at(min(int(e) * plan.batch_size, last)) for e in edges])
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for t, task in enumerate(TASKS):
        axes.step(edges, target[:, t], where="post", color=_COLOURS[t], label=f"{task}, target")
        axes.plot(middles, drawn[:, t], ".", color=_COLOURS[t], markersize=4)
    axes.set(xlabel="step", ylabel="share of the instructions", ylim=(-0.02, 1.02), xlim=(0, plan.steps))
    axes.set_title("Task shares (lines: schedule; dots: drawn by the plan)")
    axes.grid(alpha=0.3)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
