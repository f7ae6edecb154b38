"""Processes of a local cluster: started apart from this one, known by a mark in their environment.

Ray's daemons start children of their own, some in sessions of their own. A variable that all of them inherit
finds them again without a list that could be out of date, and touches nobody else's.
"""

import os
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

#: Carried by every process of a cluster; its value is the cluster's id.
MARK = "UNIGEOSEG_CLUSTER_ID"
LOOPBACK = "127.0.0.1"
_GRACE_SECONDS = 10.0


def free_ports(count: int, host: str = LOOPBACK) -> list[int]:
    """Ports that nobody listens on now, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for item in sockets:
            item.bind((host, 0))
        return [item.getsockname()[1] for item in sockets]
    finally:
        for item in sockets:
            item.close()


def start_detached(
    command: Sequence[str], log: Path, environment: Mapping[str, str], user: str | None = None
) -> int:
    """Starts a process that outlives this one, output to ``log``; returns its id."""
    with log.open("ab") as stream:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            start_new_session=True,
            user=user,
        )
    return process.pid


def marked_processes(cluster_id: str) -> list[psutil.Process]:
    """All living processes that carry the cluster's mark, zombies left out."""
    found = []
    for process in psutil.process_iter():
        try:
            if (
                process.pid != os.getpid()
                and process.environ().get(MARK) == cluster_id
                and process.status() != psutil.STATUS_ZOMBIE
            ):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def end_marked(cluster_id: str) -> int:
    """Ends every marked process, asked first and killed after ten seconds; returns how many there were.

    Repeated until none is left: a daemon may start a child while it is being stopped.
    """
    ended = 0
    while processes := marked_processes(cluster_id):
        ended += len(processes)
        end(processes)
    return ended


def end(processes: Sequence[psutil.Process]) -> None:
    """Ends processes, asked first and killed after ten seconds."""
    for process in processes:
        _signal(process.terminate)
    _, alive = psutil.wait_procs(processes, timeout=_GRACE_SECONDS)
    for process in alive:
        _signal(process.kill)
    psutil.wait_procs(alive, timeout=_GRACE_SECONDS)


def wait_for(ready: Callable[[], bool], seconds: float, pid: int | None = None) -> bool:
    """Polls ``ready`` until it holds; ``False`` after ``seconds``, or when process ``pid`` has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if ready():
            return True
        if pid is not None and not is_alive(pid):
            return False
        time.sleep(0.2)
    return ready()


def is_alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _signal(send: Callable[[], None]) -> None:
    try:
        send()
    except psutil.NoSuchProcess:
        return
