"""A PostgreSQL server for MLflow beside a local Ray cluster."""

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from cluster.errors import InputError
from cluster.local.processes import LOOPBACK, free_ports, start_detached, wait_for
from cluster.local.ray_nodes import last_line

_START_SECONDS = 60.0
_PROGRAMS = ("initdb", "postgres")
_USER = "mlflow"
#: Folder of a database while ``initdb`` works on it.
_UNFINISHED = "postgres-unfinished-{}"
#: Folder of a database while ``initdb`` works on it.
_UNFINISHED = "postgres-unfinished-{}"
#: Who runs the server when we are root, which PostgreSQL refuses to be.
_UNPRIVILEGED = ("postgres", "nobody")


def missing_for_postgres(data: Path) -> str | None:
    """Why PostgreSQL cannot run here with its files in ``data``; ``None`` when it can."""
    absent = [name for name in _PROGRAMS if shutil.which(name) is None]
    if absent:
        return f"{' and '.join(absent)} not on PATH"
    if find_spec("psycopg") is None:
        return "the package psycopg is not installed (pip install 'unigeoseg[server]')"
    user = _other_user()
    if os.geteuid() == 0 and user is None:
        return "PostgreSQL does not run as root, and there is no user postgres or nobody"
    if user is not None:
        data.mkdir(parents=True, exist_ok=True)
        if subprocess.run(["test", "-x", data.resolve()], user=user, check=False).returncode:
            return f"the user {user}, as whom it would run, cannot enter {data}"
    return None


def start_postgres(data: Path, temp: Path, environment: Mapping[str, str]) -> tuple[str, int]:
    """Starts the server on loopback, its files in ``data/postgres``; makes them at the first start.

    The password is made once, with the database, and kept in ``data/postgres.password`` (mode 0600).

    Returns:
        URI of MLflow's database, with the password, and the process id.

    Raises:
        InputError: it does not start; names the log.
    """
    folder, log = data.resolve() / "postgres", temp / "postgres.log"
    kept = data / "postgres.password"
    if not (folder / "PG_VERSION").exists():
        _make(folder, kept, log, environment)
    (port,) = free_ports(1)
    pid = start_detached(
        [
            *(str(shutil.which("postgres")), "-D", str(folder), "-h", LOOPBACK, "-p", str(port)),
            *("-c", "unix_socket_directories=", "-c", "max_connections=50"),
        ],
        log,
        environment,
        user=_other_user(),
    )
    password = kept.read_text(encoding="utf-8").strip()
    uri = f"postgresql+psycopg://{_USER}:{password}@{LOOPBACK}:{port}/postgres"
    if not wait_for(lambda: _accepts(port, password), _START_SECONDS, pid):
        raise InputError(f"PostgreSQL did not start: {last_line(log)}; the log is {log}")
    return uri, pid


def _make(folder: Path, kept: Path, log: Path, environment: Mapping[str, str]) -> None:
    """Makes the database beside its place and moves it there when it is whole.

    Raises:
        InputError: other files lie there, or ``initdb`` fails; what lay there before is not touched.
    """
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError(
            f"{folder} holds files and no database: name another --data, or take --database sqlite"
        )
    for left in folder.parent.glob(_UNFINISHED.format("*")):  # of an `up` that was killed
        shutil.rmtree(left, ignore_errors=True)
    password = secrets.token_urlsafe(24)
    user = _other_user()
    made = folder.with_name(_UNFINISHED.format(secrets.token_hex(4)))
    made.mkdir(parents=True, mode=0o700)
    with tempfile.NamedTemporaryFile("w", suffix=".pw") as file:
        file.write(password)
        file.flush()
        if user is not None:
            entry = pwd.getpwnam(user)
            os.chown(made, entry.pw_uid, entry.pw_gid)
            os.chown(file.name, entry.pw_uid, entry.pw_gid)
        done = subprocess.run(
            [
                *(str(shutil.which("initdb")), "-D", str(made), "-U", _USER, "-E", "UTF8", "--locale=C"),
                *("--auth=scram-sha-256", f"--pwfile={file.name}"),
            ],
            capture_output=True,
            text=True,
            env=dict(environment),
            cwd="/",
            user=user,
            check=False,
        )
    log.write_text(done.stdout + done.stderr)
    if done.returncode:
        shutil.rmtree(made, ignore_errors=True)
        raise InputError(f"initdb failed in {folder.parent}: {last_line(log)}")
    descriptor = os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(password)
    made.rename(folder)  # onto nothing, or onto an empty folder


def _other_user() -> str | None:
    """The user to become; ``None`` when we are not root, or nobody suits."""
    if os.geteuid() != 0:
        return None
    for name in _UNPRIVILEGED:
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    return None


def _accepts(port: int, password: str) -> bool:
    import psycopg

    try:
        psycopg.connect(
            host=LOOPBACK, port=port, user=_USER, password=password, dbname="postgres", connect_timeout=3
        ).close()
    except psycopg.OperationalError:
        return False
    return True
