"""MLflow and S3 beside a local Ray cluster."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import requests

from cluster.errors import InputError
from cluster.local.processes import LOOPBACK, free_ports, start_detached, wait_for
from cluster.local.ray_nodes import last_line
from cluster.mlflow_settings import MLFLOW_SETTINGS

_START_SECONDS = 180.0


def start_mlflow(
    host: str, temp: Path, backend: str, artifacts: str, environment: Mapping[str, str]
) -> tuple[str, int]:
    """Starts an MLflow server that passes artifacts through; returns its URL and process id.

    Args:
        host: address to listen on.
        temp: for the log.
        backend: URI of the database; goes by environment, as it may hold a password.
        artifacts: folder or ``s3://`` prefix of the artifacts.
        environment: of the process.

    Raises:
        InputError: it does not start; names the log.
    """
    (port,) = free_ports(1)
    log = temp / "mlflow.log"
    pid = start_detached(
        [
            *(sys.executable, "-m", "mlflow", "server", "--workers", "1"),
            *("--host", host, "--port", str(port)),
            *("--artifacts-destination", artifacts),
        ],
        log,
        {**environment, **MLFLOW_SETTINGS, "MLFLOW_BACKEND_STORE_URI": backend},
    )
    url = f"http://{LOOPBACK}:{port}"
    if not wait_for(lambda: _healthy(f"{url}/health"), _START_SECONDS, pid):
        raise InputError(f"the MLflow server did not start: {last_line(log)}; the log is {log}")
    return url, pid


def start_s3(temp: Path, bucket: str, environment: Mapping[str, str]) -> tuple[dict[str, str], int]:
    """Starts the development S3 server with keys of its own.

    Returns:
        The variables that a client needs, and the process id.

    Raises:
        InputError: it does not start; names the log.
    """
    (port,) = free_ports(1)
    log, told = temp / "s3.log", temp / "s3.json"
    pid = start_detached(
        [
            *(sys.executable, "-u", "-m", "cluster.s3", "--port", str(port), "--bucket", bucket),
            *("--keys", "--tell", str(told)),
        ],
        log,
        environment,
    )
    if not wait_for(told.exists, _START_SECONDS, pid):
        raise InputError(f"the S3 server did not start: {last_line(log)}; the log is {log}")
    variables: dict[str, str] = json.loads(told.read_text(encoding="utf-8"))
    told.unlink()  # the keys stay in the state file alone
    return variables, pid


def _healthy(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.RequestException:
        return False
