"""A local cluster that grows and shrinks by Ray's own autoscaler, through the commands.

``UNIGEOSEG_PICTURES=DIR`` keeps the timeline of nodes as ``autoscaling.png``.
"""

import json
import os
import re
import threading
import time
from pathlib import Path

import pytest
import requests
import yaml

from cluster.local.cluster import status
from tests.cluster_commands import unigeoseg
from tests.tiny_store import write_store
from tests.train_runs import tiny_values

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1200)]
GROUPS = {
    "head_node_type": "head",
    "max_workers": 4,
    "available_node_types": {
        "head": {"resources": {"CPU": 0}, "max_workers": 0},
        "cpu": {"resources": {"CPU": 1}, "min_workers": 0, "max_workers": 2, "priority": 2},
        "gpu": {"resources": {"CPU": 1, "accelerator": 1}, "min_workers": 0, "max_workers": 2},
    },
}


class Watch(threading.Thread):
    """Writes down which nodes live, about once a second, until told to end."""

    def __init__(self, state):
        super().__init__(daemon=True)
        self.state, self.seen, self.marks, self.stop = state, [], [], threading.Event()
        self.began = time.monotonic()

    def now(self):
        return time.monotonic() - self.began

    def mark(self, text):
        self.marks.append((self.now(), text))

    def run(self):
        while not self.stop.wait(1.0):
            alive = {n["id"]: n["group"] for n in status(self.state)["nodes"] if n["alive"] and not n["head"]}
            self.seen.append((self.now(), alive))

    def most(self, group, since=0.0):
        return max((list(a.values()).count(group) for t, a in self.seen if t >= since), default=0)

    def wait_until_gone(self, seconds=120):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.seen and not self.seen[-1][1]:
                return True
            time.sleep(1)
        return False

    def draw(self, path):
        from matplotlib.figure import Figure

        nodes = sorted({(group, name) for _, alive in self.seen for name, group in alive.items()})
        figure = Figure(figsize=(9, 1.5 + 0.35 * len(nodes)), layout="constrained")
        axes = figure.subplots()
        colours = {"cpu": "tab:blue", "gpu": "tab:orange"}
        for row, (group, name) in enumerate(nodes):
            times = [t for t, alive in self.seen if name in alive]
            axes.barh(row, times[-1] - times[0] + 1, left=times[0], color=colours[group])
        axes.set_yticks(range(len(nodes)), [f"{group} {name[-3:]}" for group, name in nodes])
        for when, text in self.marks:
            axes.axvline(when, color="grey", linewidth=0.8)
            axes.text(when, len(nodes) - 0.4, " " + text, fontsize=8, rotation=15, va="bottom")
        axes.set(xlabel="seconds", title="nodes of a local cluster", ylim=(-0.6, len(nodes) + 1.2))
        figure.savefig(path, dpi=120)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "groups.yaml").write_text(yaml.safe_dump(GROUPS))
    state = folder / "state"
    up = unigeoseg(
        *("cluster", "up", "--groups", folder / "groups.yaml", "--idle-minutes", 0.15, "--state", state),
        *("--data", folder / "data"),
    )
    watch = Watch(state)
    try:
        assert up.returncode == 0, up.stdout + up.stderr
        watch.start()
        yield folder, watch
    finally:
        watch.stop.set()
        if watch.seen:
            watch.join(timeout=30)
            pictures = Path(os.environ.get("UNIGEOSEG_PICTURES") or folder)
            watch.draw(pictures / "autoscaling.png")
        unigeoseg("cluster", "down", "--force", "--state", state)


def _submit(folder, *arguments):
    return unigeoseg("submit", "--allow-dirty", "--state", folder / "state", *arguments, seconds=400)


def _train(folder, run, **changes):
    preset = folder / f"{run}.yaml"
    values = {"scale.resources": {"accelerator": 1}, "train.steps": 300, "checkpoint.every": 20, **changes}
    preset.write_text(yaml.safe_dump(tiny_values(**values)))
    store = folder / "store"
    if not store.exists():
        write_store(store)
    options = ("--store", store, "--no-evaluate", "--run", folder / "runs" / run)
    return _submit(folder, "train", "--preset", preset, *options)


def test_a_build_brings_cpu_nodes_and_lets_them_go(cluster):
    folder, watch = cluster
    watch.mark("build")
    done = _submit(
        folder,
        *("data", "build", "--source", "synthetic", "--out", "s3://unigeoseg/store"),
        *("--set", "source.scenes=400", "--set", "workers=2", "--set", "block_images=4"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    watch.mark("build ended")
    assert watch.most("cpu") == 2 and watch.most("gpu") == 0
    assert watch.wait_until_gone()


def test_training_brings_accelerators_from_zero_and_takes_new_ones_in(cluster):
    folder, watch = cluster
    began = watch.now()
    watch.mark("training")
    scraped: dict[str, str] = {}
    scraper = threading.Thread(target=_scrape, args=(folder / "state", scraped), daemon=True)
    scraper.start()
    changes = {"scale.workers": 2, "scale.min_workers": 1, "scale.resize_seconds": 5}
    done = _train(folder, "elastic", **changes)
    assert done.returncode == 0, done.stdout + done.stderr
    watch.mark("training ended")
    assert "waiting for the autoscaler" in done.stdout + done.stderr
    assert watch.most("gpu", began) == 2
    ledger = [json.loads(line) for line in (folder / "runs/elastic/ledger.jsonl").read_text().splitlines()]
    assert [row["step"] for row in ledger] == list(range(300))
    state = json.loads(next((folder / "runs/elastic/checkpoints").glob("*300/state.json")).read_text())
    assert state["world_size"] == 2
    text = scraped.get("text", "")
    assert re.search(r'ray_unigeoseg_samples_per_second\{.*run="elastic".*\} [\d.]+', text)
    assert re.search(r'ray_unigeoseg_goodput\{.*run="elastic".*\} 0\.\d+', text)
    assert watch.wait_until_gone()


def test_what_no_group_can_bring_is_refused_at_once(cluster):
    folder, _ = cluster
    done = _train(folder, "toolarge", **{"scale.workers": 4})
    assert done.returncode == 2, done.stdout + done.stderr
    assert "no node groups that could bring what is missing" in done.stdout + done.stderr


def _scrape(state, found):
    """Reads the metrics of all nodes, as Prometheus would, until the run's are there."""
    targets = Path(status(state)["metrics"])
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and "text" not in found:
        for target in [t for entry in json.loads(targets.read_text()) for t in entry["targets"]]:
            try:
                text = requests.get(f"http://{target}/metrics", timeout=5).text
            except requests.RequestException:
                continue
            if "ray_unigeoseg_goodput" in text:
                found["text"] = text
        time.sleep(2)
