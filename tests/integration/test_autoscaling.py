"""A local cluster that grows and shrinks by Ray's own autoscaler, through the commands.

``UNIGEOSEG_PICTURES=DIR`` keeps the timeline of nodes as ``autoscaling.png``.
"""

import json
import os
import re
import threading
import time
from itertools import groupby, pairwise
from pathlib import Path

import pytest
import requests
import yaml

from cluster.local.cluster import status
from pipelines.runs.ledger import read_rows
from tests.cluster_commands import unigeoseg
from tests.fault_runs import committed
from tests.node_watch import NodeWatch
from tests.tiny_store import write_store
from tests.train_runs import ROOT, tiny_values

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1800)]
GROUPS = {
    "head_node_type": "head",
    "max_workers": 4,
    "available_node_types": {
        "head": {"resources": {"CPU": 0}, "max_workers": 0},
        "cpu": {"resources": {"CPU": 1}, "min_workers": 0, "max_workers": 2, "priority": 2},
        "gpu": {"resources": {"CPU": 1, "accelerator": 1}, "min_workers": 0, "max_workers": 2},
    },
}
BUILT = "s3://unigeoseg/store"
#: What a scrape of a CPU run cannot have: the peak of a CPU is not known.
ABSENT = {"ray_unigeoseg_mfu"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "groups.yaml").write_text(yaml.safe_dump(GROUPS))
    state = folder / "state"
    up = unigeoseg(
        *("cluster", "up", "--groups", folder / "groups.yaml", "--idle-minutes", 0.15, "--state", state),
        *("--data", folder / "data"),
    )
    watch = NodeWatch(state)
    try:
        assert up.returncode == 0, up.stdout + up.stderr
        watch.start()
        yield folder, watch
    finally:
        watch.stop.set()
        if watch.seen:
            watch.join(timeout=30)
            pictures = Path(os.environ.get("UNIGEOSEG_PICTURES") or folder)
            pictures.mkdir(parents=True, exist_ok=True)
            watch.draw(pictures / "autoscaling.png")
        unigeoseg("cluster", "down", "--force", "--state", state)


def _submit(folder, *arguments):
    return unigeoseg("submit", "--allow-dirty", "--state", folder / "state", *arguments, seconds=900)


def _preset(folder, name, **changes):
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(tiny_values(**{"scale.resources": {"accelerator": 1}, **changes})))
    return path


def _train(folder, run, *flags, **changes):
    store = folder / "store"
    if not store.exists():
        write_store(store)
    options = ("--store", store, "--no-evaluate", "--run", folder / "runs" / run)
    return _submit(folder, *flags, "train", "--preset", _preset(folder, run, **changes), *options)


def test_a_build_brings_cpu_nodes_and_lets_them_go(cluster):
    folder, watch = cluster
    watch.mark("build")
    done = _submit(
        folder,
        *("data", "build", "--source", "synthetic", "--out", BUILT),
        *("--set", "source.scenes=400", "--set", "workers=2", "--set", "block_images=4"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    watch.mark("build ended")
    assert watch.most("cpu") == 2 and watch.most("gpu") == 0
    assert watch.wait_until_gone()


def test_elastic_training_takes_nodes_in_and_gives_them_up(cluster):
    """From zero nodes to two; one is killed, training goes on with one, and takes a new one in."""
    folder, watch = cluster
    began = watch.mark("training")
    run = folder / "runs/elastic"
    found: dict[str, str] = {}
    ended = threading.Event()
    threading.Thread(target=_scrape, args=(folder / "state", found, ended), daemon=True).start()
    changes = {"scale.workers": 2, "scale.min_workers": 1, "scale.resize_seconds": 60}
    changes |= {"train.steps": 1_000_000, "checkpoint.every": 5}  # until it is stopped
    name = _train(folder, "elastic", "--no-wait", **changes).stdout.split()[-1]
    try:
        _wait_for_workers(run, 2)
        assert watch.most("gpu", began) == 2
        with watch.no_offers():  # or a new node could be there before the workers start again
            watch.kill("gpu")
            _wait_for_workers(run, 1)
        _wait_for_workers(run, 2)
        _check_scraped(found)
    finally:
        ended.set()
        watch.mark("training stopped")
        _submit(folder, "stop", name)
        logged = read_rows(run / "metrics.jsonl")
        watch.workers = [(row["time"] - watch.began, row["world_size"]) for row in logged]
    done = _submit(folder, "follow", name)
    assert "waiting for the autoscaler" in done.stdout + done.stderr
    for rows in (logged, read_rows(run / "ledger.jsonl")):
        assert [row["step"] for row in rows] == list(range(len(rows)))
    sizes = list(pairwise(size for size, _ in groupby(row["world_size"] for row in logged)))
    assert (1, 2) in sizes[sizes.index((2, 1)) :], sizes
    assert watch.wait_until_gone()


def _wait_for_workers(run, count):
    """Until the last ten logged steps were made by so many workers, and one of these is in a checkpoint."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        sizes = [row["world_size"] for row in read_rows(run / "metrics.jsonl")]
        if sizes[-10:] == [count] * 10 and committed(run, len(sizes) - 8):
            return
        time.sleep(1)
    pytest.fail(
        f"the run did not get {count} workers; it had {[(s, len(list(g))) for s, g in groupby(sizes)]}"
    )


def _check_scraped(found):
    """Every metric that the dashboard asks for is there; ours have the run's name."""
    dashboard = json.loads((ROOT / "cluster/observability/grafana_dashboard.json").read_text())
    asked = " ".join(target["expr"] for panel in dashboard["panels"] for target in panel["targets"])
    names = set(re.findall(r"\bray_\w+", asked))
    assert len(names) > 15
    assert {name for name in names if name not in found} <= ABSENT
    for name in ("samples_per_second", "wait_share", "goodput", "task_share", "workers"):
        assert re.search(r'\{.*run="elastic".*\} [\d.]+', found[f"ray_unigeoseg_{name}"]), name


def test_a_sweep_queues_beyond_the_maximum(cluster):
    """Three trials of one accelerator each where there can be two: the third waits, and all are finished."""
    folder, watch = cluster
    began = watch.mark("sweep")
    (folder / "space.yaml").write_text(
        yaml.safe_dump({"metric": "loss", "mode": "min", "space": {"train.lr": {"loguniform": [1e-4, 1e-3]}}})
    )
    evaluation = {"batch": 8, "workers": 1, "max_samples": 6}
    longer = {"tokenizer.max_length": 320, "model.language.max_positions": 400}
    preset = _preset(folder, "swept", **longer, **{"train.steps": 30, "evaluation": evaluation})
    done = _submit(
        folder,
        *("sweep", "--space", folder / "space.yaml", "--preset", preset, "--store", BUILT),
        *("--trials", 3, "--scheduler", "fifo", "--out", folder / "runs/sweep"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    watch.mark("sweep ended")
    result = json.loads((folder / "runs/sweep/sweep.json").read_text())
    assert [trial["state"] for trial in result["trials"]] == ["finished"] * 3
    assert watch.most("gpu", began) == 2
    told = [
        m[1]
        for m in re.finditer(r"^(?:\[\d/\d\] )?(start|done) +trial-", done.stdout + done.stderr, re.MULTILINE)
    ]
    assert sorted(told) == ["done"] * 3 + ["start"] * 3, done.stdout
    assert told[:3] == ["start", "start", "done"], done.stdout
    assert watch.wait_until_gone()


def test_what_no_group_can_bring_is_refused_at_once(cluster):
    folder, _ = cluster
    done = _train(folder, "toolarge", **{"scale.workers": 4})
    assert done.returncode == 2, done.stdout + done.stderr
    assert "no node groups that could bring what is missing" in done.stdout + done.stderr


def _scrape(state, found, ended):
    """Reads the metrics of all nodes, as Prometheus would: each metric's newest line by its name."""
    targets = Path(status(state)["metrics"])
    while not ended.wait(2.0):
        for target in [t for entry in json.loads(targets.read_text()) for t in entry["targets"]]:
            try:
                text = requests.get(f"http://{target}/metrics", timeout=5).text
            except requests.RequestException:
                continue  # the node has gone
            for line in text.splitlines():
                if line.startswith("ray_"):
                    found[re.split(r"[{ ]", line, maxsplit=1)[0]] = line
            time.sleep(0.1)
