"""A training run on a large cluster as a sequence of events: work, checkpoints, lost nodes, restarts.

Assumptions, all of them simplifications: nodes fail independently with exponentially distributed lives; one
lost node stops the group; a failure costs the work since the last checkpoint and a restart, during which
nodes fail as well; a checkpoint holds the step for a fixed time; a spare node is always there. A step takes
the longer of its compute and its data: ``samples / rate``. Communication grows with the logarithm of the
nodes.

Work between two checkpoints that is long against the cluster's time between failures is begun again almost
for ever. What events cannot show in reasonable time is taken from the exact mean (:func:`expected_wall`).
"""

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from unigeoseg.errors import UserError

#: Events of one run (strides and losses) beyond which its time is taken as its exact mean.
_EVENTS = 200_000
#: A run that makes less of its time training than this is told as one that does not end.
ENDLESS = 0.01


@dataclass(frozen=True)
class Cluster:
    """What is simulated; times in seconds.

    Attributes:
        gpus: workers.
        per_node: workers that are lost together.
        compute: of a step on one node, measured (`unigeoseg bench step`).
        communication: added for each doubling of the nodes.
        samples: of a step and worker.
        data_rate: samples a second that storage and CPU nodes give the whole cluster; infinite: never waits.
        node_life: mean time between failures of one node.
        checkpoint: that a checkpoint holds the training.
        restart: from a loss to the first step again.

    Raises:
        UserError: a time that is no number or negative, or 0 where only more makes sense.
    """

    gpus: int
    compute: float
    node_life: float
    checkpoint: float
    restart: float
    per_node: int = 8
    communication: float = 0.0
    samples: float = 1.0
    data_rate: float = math.inf

    def __post_init__(self) -> None:
        for name in ("compute", "node_life", "samples", "data_rate"):
            value = getattr(self, name)
            if not value > 0 or (value == math.inf and name != "data_rate"):
                raise UserError(f"{name.replace('_', ' ')} {value:g}: give a number above 0")
        for name in ("checkpoint", "restart", "communication"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"{name} {getattr(self, name):g}: give seconds, 0 or more")

    @property
    def nodes(self) -> int:
        """Machines."""
        return -(-self.gpus // self.per_node)

    @property
    def step(self) -> float:
        """Seconds of an undisturbed step."""
        busy = self.compute + self.communication * math.log2(self.nodes)
        return max(busy, self.gpus * self.samples / self.data_rate)

    @property
    def life(self) -> float:
        """Mean seconds between failures of any node."""
        return self.node_life / self.nodes


def simulate(cluster: Cluster, steps: int, every: int, seed: int) -> float:
    """Wall seconds of ``steps`` steps with a checkpoint after each ``every``-th, event by event.

    Each node's next failure waits in a queue; a replaced node gets a life of its own. This takes as long as
    there are losses: :func:`mean_wall` never takes long.
    """
    draw = np.random.default_rng(seed)
    failures = [draw.exponential(cluster.node_life) for _ in range(cluster.nodes)]
    return _run(cluster, steps, every, failures, lambda: float(draw.exponential(cluster.node_life)))


def replay(cluster: Cluster, steps: int, every: int, failures: list[float]) -> float:
    """Wall seconds of ``steps`` steps when nodes are lost at the given seconds and at no others."""
    return _run(cluster, steps, every, [*failures, math.inf], lambda: math.inf)


def _run(cluster: Cluster, steps: int, every: int, failures: list[float], life: Callable[[], float]) -> float:
    heapq.heapify(failures)
    now, done = 0.0, 0
    while done < steps:
        stride = min(every, steps - done)
        end = now + stride * cluster.step + cluster.checkpoint
        if failures[0] >= end:
            now, done = end, done + stride
            continue
        now = _restart(cluster, failures, life)
    return now


def _restart(cluster: Cluster, failures: list[float], life: Callable[[], float]) -> float:
    """Takes the next failure, and those that hit the restart itself; returns when training goes on."""
    while True:
        when = failures[0]
        heapq.heapreplace(failures, when + life())
        if failures[0] >= when + cluster.restart:
            return when + cluster.restart


def mean_wall(cluster: Cluster, steps: int, every: int, seeds: int = 8) -> float:
    """Mean wall seconds of ``seeds`` runs; the exact mean where events are too many."""
    exact = expected_wall(cluster, steps, every)
    if steps / every + exact / cluster.life > _EVENTS:
        return exact
    return float(np.mean([simulate(cluster, steps, every, seed) for seed in range(seeds)]))


def goodput(cluster: Cluster, steps: int, every: int, seeds: int = 8) -> float:
    """Share of the wall time that undisturbed steps would have taken, over the mean of ``seeds`` runs."""
    return steps * cluster.step / mean_wall(cluster, steps, every, seeds)


def expected_wall(cluster: Cluster, steps: int, every: int) -> float:
    """The exact mean for exponential failures (Daly 2006, equation 20), infinite beyond floating point.

    Work of τ seconds with a checkpoint of δ takes M e^(R/M) (e^((τ+δ)/M) - 1) seconds; the last stretch may
    be shorter than the others.
    """
    life, (whole, rest) = cluster.life, divmod(steps, every)
    try:
        restart = math.exp(cluster.restart / life)
        return (
            life
            * restart
            * sum(
                count * math.expm1((stride * cluster.step + cluster.checkpoint) / life)
                for count, stride in ((whole, every), (int(rest > 0), rest))
                if count
            )
        )
    except OverflowError:
        return math.inf


def young_interval(cluster: Cluster) -> int:
    """Steps between checkpoints that lose least, to first order: sqrt(2 δ M) seconds (Young 1974)."""
    return max(1, round(math.sqrt(2 * cluster.checkpoint * cluster.life) / cluster.step))


def sweep(
    base: Cluster, gpus: list[int], cadences: list[int], steps: int, seeds: int = 4
) -> list[dict[str, float | None]]:
    """Goodput over cluster sizes and checkpoint cadences.

    Returns:
        Rows of ``gpus``, ``every``, ``goodput``, ``young_every`` (the cadence of :func:`young_interval`),
        ``step_seconds``, ``samples_per_second`` (lost work left out) and ``hours``, which is ``None`` for a
        run that does not end (:data:`ENDLESS`).
    """
    rows: list[dict[str, float | None]] = []
    for count in gpus:
        cluster = replace(base, gpus=count)
        best = young_interval(cluster)
        for every in cadences:
            share = goodput(cluster, steps, every, seeds)
            rows.append(
                {
                    "gpus": count,
                    "every": every,
                    "goodput": share,
                    "young_every": best,
                    "step_seconds": cluster.step,
                    "samples_per_second": share * count * cluster.samples / cluster.step,
                    "hours": steps * cluster.step / share / 3600 if share >= ENDLESS else None,
                }
            )
    return rows


def draw(rows: list[dict[str, Any]], path: str) -> None:
    """The rows as curves of goodput against cluster size, one a cadence."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for every in sorted({row["every"] for row in rows}):
        chosen = [row for row in rows if row["every"] == every]
        axes.plot(
            [r["gpus"] for r in chosen], [r["goodput"] for r in chosen], "o-", label=f"every {every:g} steps"
        )
    axes.set(xscale="log", xlabel="GPUs", ylabel="goodput", ylim=(0, 1.02), title="simulated, not measured")
    axes.set_xticks(sorted({r["gpus"] for r in rows}), [f"{r:g}" for r in sorted({r["gpus"] for r in rows})])
    axes.legend(title="checkpoint")
    figure.savefig(path, dpi=120)
