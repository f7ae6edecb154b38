"""Thirty disturbances of one run by a seeded hand: in the end it is the run that nothing happened to.

``UNIGEOSEG_CHAOS_SEED`` chooses others. The timeline is drawn, and the path of the picture printed.
"""

import json
import os
import random
import time
from contextlib import suppress

import fsspec
import matplotlib
import psutil
import pytest
import requests

from cluster.s3 import LocalS3
from tests.fault_cluster import Nodes
from tests.fault_proxy import Fault, FaultProxy
from tests.fault_runs import assert_same_run, assert_tracked_once, committed
from tests.mlflow_server import MlflowServer
from tests.small_disk import mounted
from tests.train_runs import finish, start

matplotlib.use("Agg")
pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(2400)]
SEED = int(os.environ.get("UNIGEOSEG_CHAOS_SEED", "0"))
#: What happens how often.
KINDS = {"worker": 10, "node": 4, "driver": 4, "storage": 6, "tracker": 4, "disk": 2}
OPTIONS = {
    "scale.workers": 2,
    "train.steps": 1200,
    "checkpoint.every": 10,
    "checkpoint.max_failures": 1000,
    "model.tate.dropout": 0.1,
}
#: Seconds in which a run must get on after any of it.
PATIENCE = 150.0


class Hand:
    """Starts a run, disturbs it, and starts it again where it ended.

    Attributes:
        events: seconds since the beginning, kind, and the newest checkpoint's step then.
        progress: seconds, and the newest checkpoint's step.
    """

    def __init__(self, run, store, nodes, proxy, server):
        self.run, self.store, self.nodes, self.proxy, self.server = run, store, nodes, proxy, server
        self.random, self.began = random.Random(SEED), time.monotonic()
        self.events, self.progress, self.processes = [], [(0.0, 0)], []
        self.options = {**OPTIONS, "tracking.uri": server.url}
        self.go(resume=False)

    def go(self, resume):
        more = {"resume": True} if resume else {}
        self.process = start(
            "ray", self.run, self.store, environment=self.nodes.environment, **self.options, **more
        )
        self.processes.append(self.process)

    def now(self):
        return time.monotonic() - self.began

    def newest(self):
        return max(committed(self.run), default=0)

    @property
    def said(self):
        """What all runs printed so far, each a text."""
        return [process.printed() for process in self.processes]

    def disturb(self, kind):
        self.events.append((self.now(), kind, self.newest()))
        getattr(self, f"_{kind}")()

    def await_progress(self):
        """Until a checkpoint that was not there; what ended for want of room is started again."""
        step, limit = self.newest(), time.monotonic() + PATIENCE
        while self.newest() <= step:
            code = self.process.poll()
            assert code != 0, f"the run was over after {len(self.events)} disturbances: give it more steps"
            if code is not None:
                assert "No space left on device" in self.said[-1], self.said[-1][-3000:]
                self.go(resume=True)
            assert time.monotonic() < limit, (self.events[-1], "".join(self.said)[-3000:])
            time.sleep(0.05)
        self.progress.append((self.now(), self.newest()))

    def await_end(self):
        limit = time.monotonic() + 400
        while (code := self.process.poll()) is None:
            assert time.monotonic() < limit, "".join(self.said)[-3000:]
            self.progress.append((self.now(), self.newest()))
            time.sleep(1)
        assert code == 0, self.said[-1][-3000:]

    def _some_worker(self):
        """Any of those that train; waits for one where a group is just on its way."""
        limit = time.monotonic() + PATIENCE
        while not (found := self.nodes.workers()):
            assert time.monotonic() < limit and self.process.poll() is None, "".join(self.said)[-3000:]
            time.sleep(0.05)
        return self.random.choice(found)

    def _worker(self):
        with suppress(psutil.NoSuchProcess):
            self._some_worker().kill()

    def _node(self):
        with suppress(psutil.NoSuchProcess, StopIteration):
            self.nodes.lose(self.nodes.raylet_of(self._some_worker()))
        self.await_progress()  # on the node in reserve
        self.nodes.resize(3)

    def _driver(self):
        self.process.kill()
        self.process.wait()
        self.go(resume=True)

    def _storage(self):
        self.proxy.change(lambda number, path: Fault(silent=True))
        time.sleep(self.random.uniform(1, 5))
        self.proxy.change(lambda number, path: None)

    def _tracker(self):
        self.server.kill()
        self.await_progress()
        self.server.start()

    def _disk(self):
        ballast = self.run.parent / "ballast"
        with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
            while True:
                file.write(b"\0" * 65536)
        limit = time.monotonic() + 20
        while self.process.poll() is None and time.monotonic() < limit:
            time.sleep(0.05)
        ballast.unlink()

    def draw(self, path):
        from matplotlib import pyplot

        figure, axes = pyplot.subplots(figsize=(14, 5), layout="constrained")
        axes.step(*zip(*self.progress, strict=True), where="post", color="black", label="newest checkpoint")
        for number, kind in enumerate(KINDS):
            found = [(at, step) for at, what, step in self.events if what == kind]
            axes.scatter(*zip(*found, strict=True), label=kind, color=f"C{number}", zorder=3)
        axes.set(xlabel="seconds", ylabel="step", title=f"{len(self.events)} disturbances, seed {SEED}")
        axes.legend()
        figure.savefig(path, dpi=90)
        pyplot.close(figure)


@pytest.fixture
def store(monkeypatch, tiny_store):
    """On S3, its shards behind a proxy."""
    import s3fs

    with LocalS3() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        fsspec.filesystem("s3").put(str(tiny_store), f"{server.url}/store", recursive=True)
        with FaultProxy(server.environment["AWS_ENDPOINT_URL"]) as proxy:
            monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
            s3fs.S3FileSystem.clear_instance_cache()
            yield f"{server.url}/store", proxy
            s3fs.S3FileSystem.clear_instance_cache()


def test_whatever_happens(store, tmp_path, tiny_store, monkeypatch):
    plain = {key: value for key, value in OPTIONS.items() if key != "checkpoint.max_failures"}
    undisturbed = tmp_path / "undisturbed/run"
    finish(start("plain", undisturbed, tiny_store, processes=2, **plain))
    order = [kind for kind, count in KINDS.items() for _ in range(count)]
    random.Random(SEED).shuffle(order)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("UNIGEOSEG_SCRATCH", str(scratch))
    folder = tmp_path / "server"
    folder.mkdir()
    with mounted(tmp_path / "disk", 96) as disk, MlflowServer(folder) as server, Nodes() as nodes:
        server.start()
        nodes.resize(3)  # two to train on, one in reserve
        hand = Hand(disk / "run", store[0], nodes, store[1], server)
        try:
            hand.await_progress()
            for kind in order:
                hand.disturb(kind)
                hand.await_progress()
            hand.await_end()
        finally:
            hand.process.kill()
            hand.draw(tmp_path / "chaos.png")
            print(f"{tmp_path}/chaos.png")
        assert_same_run(hand.run, undisturbed)
        assert_tracked_once(server.database, "FINISHED", OPTIONS["train.steps"])
        assert json.loads((hand.run / "status.json").read_text())["state"] == "finished"
        _nothing_is_left(nodes, scratch)
        assert {path.name for path in disk.iterdir()} == {"run", "mlflow.db"}


def _nothing_is_left(nodes, scratch):
    limit = time.monotonic() + 60
    while nodes.workers() or _placement_groups(nodes):
        assert time.monotonic() < limit, (nodes.workers(), _placement_groups(nodes))
        time.sleep(0.5)
    assert [path for path in scratch.rglob("*") if path.is_file()] == []


def _placement_groups(nodes):
    headers = {"Authorization": f"Bearer {nodes.token}"}
    address = f"{nodes.dashboard}/api/v0/placement_groups?limit=1000"
    found = requests.get(address, headers=headers, timeout=15).json()["data"]["result"]["result"]
    return [group for group in found if group["state"] != "REMOVED"]
