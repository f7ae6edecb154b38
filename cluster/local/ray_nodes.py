"""Head and workers of a local Ray cluster, each a raylet of its own."""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import requests

from cluster.errors import InputError
from cluster.local.processes import free_ports, start_detached, wait_for

_START_SECONDS = 120.0
#: What a raylet listens on beside what is named below; 0 lets the system choose.
_ANY_PORT = ["--min-worker-port=0", "--max-worker-port=0", "--disable-usage-stats", "--block"]


@dataclass(frozen=True)
class NodeSize:
    """What a node offers."""

    cpus: int
    memory: int
    resources: Mapping[str, float]
    gpus: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)


def ray_program() -> str:
    """The ``ray`` command of this environment.

    Raises:
        InputError: it is not beside the interpreter.
    """
    path = Path(sys.executable).parent / "ray"
    if not path.exists():
        raise InputError(f"no ray command at {path}; install the project in this environment: make install")
    return str(path)


def start_head(
    host: str,
    dashboard_host: str,
    temp: Path,
    size: NodeSize,
    environment: Mapping[str, str],
    autoscaling: Callable[[str], Mapping[str, object]] | None = None,
) -> tuple[str, str, int]:
    """Starts the head and waits until its job server answers.

    Args:
        host: address that the nodes speak on.
        dashboard_host: address that the dashboard listens on.
        temp: Ray's session folder; short, as it holds sockets (a path of 107 bytes at most).
        size: of the head itself; no CPU keeps work off it.
        environment: of the process.
        autoscaling: makes the autoscaler's configuration from the control store's ``host:port``.

    Returns:
        ``host:port`` of the control store, URL of the dashboard, process id.

    Raises:
        InputError: it does not start; names the log.
    """
    gcs, dashboard, client, *agents = free_ports(7)
    log = temp / "head.log"
    command = [
        ray_program(),
        "start",
        "--head",
        f"--node-ip-address={host}",
        f"--port={gcs}",
        "--include-dashboard=true",
        f"--dashboard-host={dashboard_host}",
        f"--dashboard-port={dashboard}",
        f"--ray-client-server-port={client}",
        f"--temp-dir={temp}",
        *_node_options(size, agents),
    ]
    if autoscaling is not None:
        config = temp / "autoscaling.json"
        config.write_text(json.dumps(autoscaling(f"{host}:{gcs}"), indent=1), encoding="utf-8")
        command.append(f"--autoscaling-config={config}")
    pid = start_detached(command, log, environment)
    url = f"http://{host}:{dashboard}"
    headers = {"Authorization": f"Bearer {Path(environment['RAY_AUTH_TOKEN_PATH']).read_text()}"}
    if not wait_for(lambda: _answers(f"{url}/api/version", headers), _START_SECONDS, pid):
        raise InputError(f"the Ray head did not start: {last_line(log)}; the log is {log}")
    return f"{host}:{gcs}", url, pid


def start_worker(
    gcs: str, host: str, temp: Path, number: int, size: NodeSize, environment: Mapping[str, str]
) -> int:
    """Starts one worker raylet; returns its process id."""
    command = [
        ray_program(),
        "start",
        f"--address={gcs}",
        f"--node-ip-address={host}",
        # A session folder of its own: a job's working directory is unpacked by each node of the cluster, and
        # would be replaced under the job's feet in a folder that nodes share.
        f"--temp-dir={temp / f'w{number}'}",
        *_node_options(size, free_ports(4)),
    ]
    return start_detached(command, temp / f"worker-{number}.log", environment)


def last_line(log: Path) -> str:
    """The last line that says something."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "no output"


def _node_options(size: NodeSize, ports: list[int]) -> list[str]:
    listen, agent, metrics, environment_agent = ports
    return [
        f"--num-cpus={size.cpus}",
        f"--num-gpus={size.gpus}",
        f"--object-store-memory={size.memory}",
        f"--resources={json.dumps(dict(size.resources))}",
        *([f"--labels={','.join(f'{k}={v}' for k, v in size.labels.items())}"] if size.labels else []),
        f"--dashboard-agent-listen-port={listen}",
        # A raylet that is not told this port ends itself when its agent has not found one within 30 s.
        f"--dashboard-agent-grpc-port={agent}",
        f"--metrics-export-port={metrics}",
        f"--runtime-env-agent-port={environment_agent}",
        *_ANY_PORT,
    ]


def _answers(url: str, headers: Mapping[str, str]) -> bool:
    try:
        return requests.get(url, headers=headers, timeout=5).ok
    except requests.RequestException:
        return False
