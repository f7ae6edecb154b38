"""Up, status and down of a cluster on this machine."""

import os
import secrets
import sys
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from cluster.errors import InputError
from cluster.local.interruption import undisturbed, unwinding
from cluster.local.own_nodes import autoscaling_config, head_environment
from cluster.local.postgres import missing_for_postgres, start_postgres
from cluster.local.processes import LOOPBACK, MARK, end, end_marked, marked_processes, wait_for
from cluster.local.ray_nodes import NodeSize, last_line, start_head, start_worker
from cluster.local.services import start_mlflow, start_s3
from cluster.local.state import (
    TOKEN,
    LocalCluster,
    begin,
    forget,
    read_state,
    write_private,
    write_state,
)
from cluster.submission.client import connect, living_jobs

_JOIN_SECONDS = 90.0
_ATTEMPTS = 3
_BUCKET = "unigeoseg"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Wishes:
    """What ``up`` is asked for.

    Attributes:
        workers: raylets beside the head; none with ``groups``.
        cpus: that each worker offers; they may be more than the machine has.
        memory: object store of each node in bytes.
        host: address that dashboard and MLflow listen on.
        s3: whether to start an S3 server.
        data: folder of MLflow's database and artifacts, which outlive the cluster.
        database: of MLflow: ``postgresql``, ``sqlite``, or ``auto``: PostgreSQL where it can run.
        resources: custom resources of each worker.
        groups: a cluster file whose node groups the autoscaler starts and stops here, instead of workers.
        idle_minutes: after which the autoscaler stops a node without work.
    """

    workers: int
    cpus: int
    memory: int
    host: str
    s3: bool
    data: Path
    database: str = "auto"
    resources: Mapping[str, float] = field(default_factory=dict)
    groups: Path | None = None
    idle_minutes: float = 1.0


def up(folder: Path, wishes: Wishes, say: Say) -> LocalCluster:
    """Starts everything, or nothing: what was started is stopped again when a later part fails.

    Identity and temporary folder are written down before anything is started, so that also what a killed
    ``up`` left is found by the next one.

    Raises:
        InputError: a cluster runs already, or a part does not start; its logs stay until the next ``up`` or
            ``down``.
    """
    _clear(folder, say)
    groups = read_groups(wishes.groups) if wishes.groups is not None else None
    with unwinding():
        begun = begin(folder, uuid.uuid4().hex)
        try:
            return _start(folder, wishes, groups, begun, say)
        except BaseException as error:
            with undisturbed():
                with suppress(OSError):  # the terminal may be gone
                    say("stopping what was started")
                end_marked(begun.id)
                if not isinstance(error, InputError):
                    forget(folder, begun)
            raise


def _clear(folder: Path, say: Say) -> None:
    """Removes what a cluster that no longer runs, or an ``up`` that was killed, left behind.

    Raises:
        InputError: a cluster runs, or is being started.
    """
    there = read_state(folder)
    if there is None:
        return
    if there.starting:
        raise InputError(
            f"another `unigeoseg cluster up` is at work with {folder}: wait for it, or stop it with "
            "`unigeoseg cluster down`"
        )
    if there.ready and there.alive:
        raise InputError(
            f"a cluster runs already ({there.gcs}, {there.workers} workers); "
            "`unigeoseg cluster status` shows it, `unigeoseg cluster down` stops it"
        )
    say("a cluster that was not stopped has died; clearing away what it left")
    end_marked(there.id)
    forget(folder, there)


def _start(
    folder: Path,
    wishes: Wishes,
    groups: tuple[dict[str, Any], int] | None,
    begun: LocalCluster,
    say: Say,
) -> LocalCluster:
    temp = Path(begun.temp)
    token_file = folder.resolve() / TOKEN
    write_private(token_file, secrets.token_hex(32))
    ours = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token_file)}
    environment = _environment(begun.id) | ours
    s3: dict[str, str] = {}
    if wishes.s3:
        say("starting the S3 server")
        s3, _ = start_s3(temp, _BUCKET, environment)
        environment |= s3
    say("starting MLflow")
    wishes.data.mkdir(parents=True, exist_ok=True)
    data = wishes.data.resolve()
    backend = _backend(wishes, temp, environment, say)
    mlflow, _ = start_mlflow(wishes.host, temp, backend, str(data / "mlartifacts"), environment)
    environment["MLFLOW_TRACKING_URI"] = mlflow
    say("starting the Ray head")
    nothing = NodeSize(0, wishes.memory, {})
    autoscaling = None
    if groups is not None:
        environment |= head_environment()
        autoscaling = partial(
            autoscaling_config, *groups, wishes.idle_minutes, temp=temp, memory=wishes.memory
        )
    gcs, dashboard, _ = start_head(LOOPBACK, wishes.host, temp, nothing, environment, autoscaling)
    made = replace(
        begun,
        gcs=gcs,
        dashboard=dashboard,
        token_file=str(token_file),
        mlflow=mlflow,
        s3=s3.get("AWS_ENDPOINT_URL"),
        bucket=f"s3://{_BUCKET}" if s3 else None,
        workers=wishes.workers,
        environment={
            **ours,
            "RAY_ADDRESS": gcs,
            "RAY_API_SERVER_ADDRESS": dashboard,
            "MLFLOW_TRACKING_URI": mlflow,
            **s3,
        },
    )
    size = NodeSize(wishes.cpus, wishes.memory, wishes.resources)
    for number in range(wishes.workers):
        say(f"starting Ray worker {number + 1} of {wishes.workers}")
        _join(made, number, size, environment)
    write_state(folder, made)
    return made


def read_groups(path: Path) -> tuple[dict[str, Any], int]:
    """Node groups of a cluster file without the head, and how many nodes they may have together.

    Raises:
        InputError: it cannot be read, or is no such file.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        head = content.get("head_node_type")
        groups = {name: g for name, g in content["available_node_types"].items() if name != head}
        limits = [int(g["max_workers"]) for g in groups.values() if g["resources"] is not None]
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"--groups {path}: not a cluster file whose groups have resources and max_workers "
            f"({reason}); ray_cluster.yaml is one"
        ) from error
    return groups, int(content.get("max_workers", sum(limits)))


def _backend(wishes: Wishes, temp: Path, environment: Mapping[str, str], say: Say) -> str:
    """URI of MLflow's database, its server started if it has one.

    Raises:
        InputError: PostgreSQL was asked for and cannot run.
    """
    sqlite = wishes.data.resolve() / "mlflow.db"
    if wishes.database != "sqlite":
        missing = missing_for_postgres(wishes.data)
        if missing is None and wishes.database == "auto" and sqlite.exists():
            missing = f"{sqlite} holds runs already (--database postgresql leaves it aside)"
        if missing is None:
            say("starting PostgreSQL")
            return start_postgres(wishes.data, temp, environment)[0]
        if wishes.database == "postgresql":
            raise InputError(f"--database postgresql: {missing}")
        say(f"MLflow keeps its runs in SQLite: {missing}")
    return f"sqlite:///{sqlite}"


def _join(cluster: LocalCluster, number: int, size: NodeSize, environment: Mapping[str, str]) -> None:
    """Starts a worker and waits for it.

    A busy machine may exceed the times that Ray gives a raylet and its agents: so more than once.
    """
    temp = Path(cluster.temp)
    for _ in range(_ATTEMPTS):
        pid = start_worker(cluster.gcs, LOOPBACK, temp, number, size, environment)
        if wait_for(lambda: len(_living(cluster)) == number + 2, _JOIN_SECONDS, pid):
            return
    log = temp / f"worker-{number}.log"
    raise InputError(f"worker {number + 1} did not join: {last_line(log)}; the log is {log}")


def status(folder: Path) -> dict[str, Any]:
    """What runs.

    Returns:
        ``{"running": false, "stale", "starting"}`` (whether one has died, or is being started), or with
        ``running: true`` the ``address``, ``dashboard``, ``mlflow``, ``s3``,
        ``bucket``, ``metrics`` (file of Prometheus targets), ``nodes`` (``id``, ``head``, ``alive``,
        ``group``, ``resources``), ``jobs`` (``id``, ``status``, ``entrypoint``) and ``processes``.

    Raises:
        InputError: the head does not answer.
    """
    there = read_state(folder)
    if there is None or not there.ready or not there.alive:
        starting = there is not None and there.starting
        return {"running": False, "stale": there is not None and not starting, "starting": starting}
    client = connect(there.dashboard, there.token_file)
    return {
        "running": True,
        "address": there.gcs,
        "dashboard": there.dashboard,
        "mlflow": there.mlflow,
        "s3": there.s3,
        "bucket": there.bucket,
        "metrics": str(Path(there.temp) / "prom_metrics_service_discovery.json"),
        "nodes": _nodes(there),
        "jobs": [
            {"id": job.submission_id, "status": str(job.status.value), "entrypoint": job.entrypoint}
            for job in client.list_jobs()
            if job.submission_id
        ],
        "processes": len(marked_processes(there.id)),
    }


def running_jobs(folder: Path) -> list[str]:
    """Ids of the jobs that run or wait; none when nothing answers."""
    there = read_state(folder)
    if there is None or not there.ready or not there.alive:
        return []
    try:
        return living_jobs(connect(there.dashboard, there.token_file))
    except InputError:
        return []


def down(folder: Path) -> int:
    """Ends every process of the cluster and removes its files; returns how many processes there were.

    An ``up`` that is at work is ended first, so that it starts nothing more.

    Raises:
        InputError: there is no cluster.
    """
    there = read_state(folder)
    if there is None:
        raise InputError(f"no cluster is written down in {folder}; `unigeoseg cluster up` starts one")
    starter = there.starting_process() if there.starting else None
    if starter is not None:
        end([starter])
    ended = end_marked(there.id)
    forget(folder, there)
    return ended


def _environment(identity: str) -> dict[str, str]:
    """Ours, the mark, and the environment's own programs first: a job's ``python`` is the head's."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return {**kept, "PATH": path, MARK: identity, "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


def _living(cluster: LocalCluster) -> list[dict[str, Any]]:
    return [node for node in _nodes(cluster) if node["alive"]]


def _nodes(cluster: LocalCluster) -> list[dict[str, Any]]:
    import requests

    headers = {"Authorization": f"Bearer {Path(cluster.token_file).read_text()}"}
    try:
        answer = requests.get(
            f"{cluster.dashboard}/api/v0/nodes?detail=true&limit=1000", headers=headers, timeout=15
        )
        rows = answer.json()["data"]["result"]["result"]
    except (requests.RequestException, ValueError, KeyError, TypeError):
        return []
    return [
        {
            "id": row["node_id"],
            "head": bool(row["is_head_node"]),
            "alive": row["state"] == "ALIVE",
            "group": (row.get("labels") or {}).get("ray.io/node-group"),
            "resources": row.get("resources_total") or {},
        }
        for row in rows
    ]
