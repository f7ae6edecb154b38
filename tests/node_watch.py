"""Which nodes of a local cluster live, written down second by second, and drawn."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from cluster.local.cluster import status
from cluster.local.processes import marked_processes
from cluster.local.state import read_state

_COLOURS = {"cpu": "tab:blue", "gpu": "tab:orange"}


class NodeWatch(threading.Thread):
    """Looks about once a second until told to end.

    Args:
        state: folder of the cluster's state.
    """

    def __init__(self, state: Path) -> None:
        super().__init__(daemon=True)
        self.state, self.stop = state, threading.Event()
        self.seen: list[tuple[float, dict[str, str]]] = []
        self.marks: list[tuple[float, str]] = []
        self.workers: list[tuple[float, int]] = []
        self.began = time.time()

    def now(self) -> float:
        """Seconds since the beginning."""
        return time.time() - self.began

    def mark(self, text: str) -> float:
        """Writes down that something begins or ends now; returns when."""
        self.marks.append((self.now(), text))
        return self.marks[-1][0]

    def run(self) -> None:
        """Looks and looks."""
        while not self.stop.wait(1.0):
            alive = {n["id"]: n["group"] for n in status(self.state)["nodes"] if n["alive"] and not n["head"]}
            self.seen.append((self.now(), alive))

    def most(self, group: str, since: float = 0.0) -> int:
        """Most nodes of a group that lived at once."""
        return max((list(a.values()).count(group) for t, a in self.seen if t >= since), default=0)

    def wait_until_gone(self, seconds: float = 120) -> bool:
        """Whether all nodes but the head went within the time."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.seen and not self.seen[-1][1]:
                return True
            time.sleep(1)
        return False

    def kill(self, group: str) -> None:
        """Kills the newest node of a group and all that runs on it, as a spot market would."""
        name = max(node for node, of in self.seen[-1][1].items() if of == group)
        there = read_state(self.state)
        assert there is not None
        for process in marked_processes(there.id):
            with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
                if process.environ().get("RAY_OVERRIDE_NODE_ID_FOR_TESTING") == name:
                    process.kill()
        self.mark("node killed")

    @contextmanager
    def no_offers(self) -> Iterator[None]:
        """While this lasts the autoscaler stands still: no node comes or goes, as on an empty spot market."""
        there = read_state(self.state)
        assert there is not None
        scalers = [
            process
            for process in marked_processes(there.id)
            if any(part.endswith("/monitor.py") for part in process.cmdline())
        ]
        assert len(scalers) == 1, scalers
        scalers[0].suspend()
        try:
            yield
        finally:
            scalers[0].resume()
            self.mark("nodes to be had again")

    def draw(self, path: Path) -> None:
        """A bar for each node from its first to its last second; below, the workers of an elastic run."""
        from matplotlib.figure import Figure

        nodes = sorted({(name, group) for _, alive in self.seen for name, group in alive.items()})
        figure = Figure(figsize=(11, 2.8 + 0.35 * len(nodes)), layout="constrained")
        axes, below = figure.subplots(2, 1, sharex=True, height_ratios=[len(nodes) + 3, 3])
        for row, (name, group) in enumerate(nodes):
            times = [t for t, alive in self.seen if name in alive]
            axes.barh(row, times[-1] - times[0] + 1, left=times[0], color=_COLOURS[group])
        axes.set_yticks(range(len(nodes)), [f"{group} {name[-3:]}" for name, group in nodes])
        for place, (when, text) in enumerate(sorted(self.marks)):
            for each in (axes, below):
                each.axvline(when, color="grey", linewidth=0.8)
            axes.text(when, len(nodes) + 0.75 * (place % 3), f" {text}", fontsize=8, va="bottom")
        axes.set(title="nodes of a local cluster, by group", ylim=(-0.6, len(nodes) + 2.4))
        if self.workers:
            times, counts = zip(*sorted(self.workers), strict=True)
            below.plot(times, counts, "k.", markersize=3)
        below.set(xlabel="seconds", ylabel="workers\nof the elastic run", ylim=(0, 2.5), yticks=[0, 1, 2])
        figure.savefig(path, dpi=120)
