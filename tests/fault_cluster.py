"""A Ray cluster of several nodes on this machine, any of which may be lost."""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

import psutil
import requests

from cluster.local.processes import LOOPBACK, MARK, end_marked, marked_processes
from cluster.local.ray_nodes import NodeSize, ray_program, start_head, start_worker
from tests.fault_runs import training_workers, wait_for
from tests.train_runs import ROOT

_MEMORY = 100 << 20


class Nodes:
    """A head without CPUs for drivers, and nodes of one CPU; a context manager. Processes bear ``mark``."""

    def __enter__(self) -> "Nodes":
        self._temp, self.mark, self._count = Path(tempfile.mkdtemp(prefix="ugs-")), uuid.uuid4().hex, 0
        token = self._temp / "token"
        token.write_text(secrets.token_hex(32))
        ours = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        self._environment = {**kept, **ours, "PATH": path, MARK: self.mark, "PYTHONPATH": str(ROOT)}
        self._environment |= {"OMP_NUM_THREADS": "1", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
        try:
            size = NodeSize(0, _MEMORY, {})
            self._gcs, self.dashboard, _ = start_head(LOOPBACK, LOOPBACK, self._temp, size, self._environment)
            self._head = wait_for("the head's raylet", self._raylets)[0].pid
        except BaseException:
            self.__exit__()
            raise
        #: What a driver needs in its environment.
        self.environment = {**ours, "RAY_ADDRESS": self._gcs}
        return self

    def __exit__(self, *_: object) -> None:
        end_marked(self.mark)
        shutil.rmtree(self._temp, ignore_errors=True)

    def resize(self, count: int) -> None:
        """Starts nodes or ends some, the oldest first; returns when Ray knows."""
        there = self.nodes()
        for raylet in there[: max(0, len(there) - count)]:
            self.lose(raylet)
        for _ in range(count - len(there)):
            self._count += 1
            size = NodeSize(1, _MEMORY, {})
            start_worker(self._gcs, LOOPBACK, self._temp, self._count, size, self._environment)
        wait_for(f"{count} nodes", lambda: self._alive() == count + 1, seconds=180)

    def nodes(self) -> list[psutil.Process]:
        """The raylets of the nodes, without the head's, the oldest first."""
        return [p for p in self._raylets() if p.pid != self._head]

    def _raylets(self) -> list[psutil.Process]:
        found = [p for p in marked_processes(self.mark) if p.name() == "raylet"]
        return sorted(found, key=lambda p: p.create_time())

    @property
    def token(self) -> str:
        """Of the dashboard."""
        return (self._temp / "token").read_text()

    def _alive(self) -> int:
        headers = {"Authorization": f"Bearer {self.token}"}
        try:
            answer = requests.get(f"{self.dashboard}/api/v0/nodes?limit=1000", headers=headers, timeout=15)
            found = answer.json()["data"]["result"]["result"]
        except (requests.RequestException, ValueError, KeyError, TypeError):
            return -1
        return sum(node["state"] == "ALIVE" for node in found)

    def workers(self) -> list[psutil.Process]:
        """Ray Train's workers on all nodes."""
        return training_workers(marked_processes(self.mark))

    @staticmethod
    def raylet_of(worker: psutil.Process) -> psutil.Process:
        """The node that a worker runs on."""
        return next(p for p in worker.parents() if p.name() == "raylet")

    def announce_loss(self, raylet: psutil.Process, seconds: int) -> None:
        """What a provider of spot machines does before it takes one."""
        node = next(a.split("=")[1] for a in raylet.cmdline() if a.startswith("--node_id="))
        command = [ray_program(), "drain-node", "--address", self._gcs, "--node-id", node]
        command += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot"]
        command += ["--deadline-remaining-seconds", str(seconds)]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    @staticmethod
    def lose(raylet: psutil.Process) -> None:
        """SIGKILL to a node's raylet: its workers go with it."""
        os.kill(raylet.pid, signal.SIGKILL)
