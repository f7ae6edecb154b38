"""An MLflow server that may be stopped and started again at the same address."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import requests

from cluster.local.processes import LOOPBACK, free_ports
from cluster.mlflow_settings import MLFLOW_SETTINGS
from tests.train_runs import ROOT


class MlflowServer:
    """Listens on a port of loopback once started; its runs are in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder, (self.port,) = folder, free_ports(1)
        self.url = f"http://{LOOPBACK}:{self.port}"
        self.database = f"sqlite:///{folder}/server.db"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "MlflowServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Returns when it answers."""
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "mlflow", "server", "--workers", "1"),
                    *("--host", LOOPBACK, "--port", str(self.port)),
                    *("--backend-store-uri", self.database),
                    *("--artifacts-destination", str(self.folder / "artifacts")),
                ],
                cwd=ROOT,
                env={**os.environ, **MLFLOW_SETTINGS},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 120
        while not self._answers():
            assert time.monotonic() < deadline and self._process.poll() is None, "MLflow does not start"
            time.sleep(0.2)

    def kill(self) -> None:
        """With all its processes, at once."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def freeze(self, on: bool) -> None:
        """Connections are taken and nothing is answered, or again."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP if on else signal.SIGCONT)

    def _answers(self) -> bool:
        try:
            return requests.get(f"{self.url}/health", timeout=2).ok
        except requests.RequestException:
            return False
