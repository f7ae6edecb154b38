"""What is written down about a running local cluster, readable by its owner alone."""

import json
import os
import secrets
import shlex
import shutil
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import psutil

from cluster.errors import InputError
from cluster.local.processes import marked_processes

#: Where the state is kept unless ``--state`` or ``UNIGEOSEG_CLUSTER_STATE`` says otherwise.
DEFAULT_STATE = Path("runs/.cluster")
_FILE = "state.json"
#: Shell exports with which other programs use the cluster.
ENVIRONMENT = "environment"
TOKEN = "ray_token"
_PARTIAL = f"{_FILE}.new"
#: What a cluster writes into its state folder beside the state itself; nothing else there is ever removed.
_OURS = (ENVIRONMENT, TOKEN, _PARTIAL)
#: In the temporary folder: the id of the cluster that made it, without which it is not removed.
_OWNER = ".cluster-id"
_VERSION = 1


@dataclass(frozen=True)
class LocalCluster:
    """A cluster, written down before its first process and again when all of it runs.

    Attributes:
        id: the mark that its processes carry.
        temp: Ray's session folder, logs and sockets; goes with the cluster.
        gcs: ``host:port`` that drivers connect to; empty until all of it runs.
        dashboard: URL of dashboard and job server.
        token_file: file of Ray's access token.
        mlflow: tracking URI.
        s3: endpoint, or ``None``.
        bucket: ``s3://`` URL of the bucket, or ``None``.
        workers: raylets beside the head.
        environment: variables with which commands use the cluster; holds generated secrets.
        starter: id and start time of the process that starts it.
        made_folder: whether the state folder was made for it.
    """

    id: str
    temp: str
    gcs: str = ""
    dashboard: str = ""
    token_file: str = ""
    mlflow: str = ""
    s3: str | None = None
    bucket: str | None = None
    workers: int = 0
    environment: dict[str, str] = field(default_factory=dict)
    starter: tuple[int, float] | None = None
    made_folder: bool = False

    @property
    def ready(self) -> bool:
        """Whether all of it was started once."""
        return bool(self.gcs)

    @property
    def starting(self) -> bool:
        """Whether an ``up`` is at work on it now."""
        return not self.ready and self.starting_process() is not None

    def starting_process(self) -> psutil.Process | None:
        """The process that starts it, while it lives."""
        if self.starter is None:
            return None
        pid, began = self.starter
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            if process.create_time() == began and process.status() != psutil.STATUS_ZOMBIE:
                return process
        return None

    @property
    def alive(self) -> bool:
        """Whether any of its processes lives."""
        return bool(marked_processes(self.id))


def state_folder(given: Path | None) -> Path:
    """The folder that ``--state`` means."""
    return given or Path(os.environ.get("UNIGEOSEG_CLUSTER_STATE") or DEFAULT_STATE)


def read_state(folder: Path) -> LocalCluster | None:
    """The cluster written down in ``folder``, running or not; ``None`` when there is none.

    Raises:
        InputError: the file is damaged, of another version, or no cluster's.
    """
    path = folder / _FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("version") != _VERSION:
            raise InputError(f"{path} is of another version of this program; stop that cluster with it")
        found = LocalCluster(**content)
        return replace(found, starter=(int(found.starter[0]), found.starter[1]) if found.starter else None)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"cannot read {path} as the state of a cluster ({error!r}): name another folder with --state, or "
            "remove that one file if a cluster wrote it and none runs"
        ) from error


def begin(folder: Path, identity: str) -> LocalCluster:
    """Writes down who starts a cluster and which temporary folder it will have, then makes that folder.

    Whatever stops ``up`` from here on, the next ``up`` or ``down`` knows what to look for.

    Raises:
        InputError: another ``up`` was faster, the folder cannot be written to, or it holds a file of another
            origin under a name that a cluster uses.
    """
    try:
        made = not folder.is_dir()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        foreign = [name for name in _OURS if os.path.lexists(folder / name)]
        if foreign:
            raise InputError(
                f"{folder} holds {foreign[0]}, which no cluster wrote: name another folder with --state, or "
                "remove that file"
            )
        temp = Path(tempfile.gettempdir()) / f"ugs-{secrets.token_hex(4)}"
        us = psutil.Process()
        begun = LocalCluster(identity, str(temp), starter=(us.pid, us.create_time()), made_folder=made)
        _write_new(folder / _FILE, _text(begun))
        temp.mkdir(mode=0o700)
        _write_new(temp / _OWNER, identity)
    except FileExistsError as error:
        raise InputError(
            f"{error.filename} is there already: another `unigeoseg cluster up` is at work with {folder}, or "
            "it is a file; wait for it, or name another folder with --state"
        ) from error
    except OSError as error:
        raise InputError(f"cannot write {error.filename} ({error.strerror}): name another --state") from error
    return begun


def write_state(folder: Path, cluster: LocalCluster) -> None:
    """Writes it down with mode 0600: it holds credentials."""
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in cluster.environment.items()]
    write_private(folder / ENVIRONMENT, "".join(lines))
    write_private(folder / _PARTIAL, _text(cluster))
    (folder / _PARTIAL).replace(folder / _FILE)


def write_private(path: Path, text: str) -> None:
    """Writes a file that only its owner can read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)


def forget(folder: Path, cluster: LocalCluster) -> None:
    """Removes what the cluster left on disk: its state, logs and Ray's session, and nothing else.

    The state goes last, so that a removal that was cut short is found again.
    """
    temp = Path(cluster.temp)
    with suppress(OSError):
        if (temp / _OWNER).read_text(encoding="utf-8") == cluster.id:
            # The owner's mark goes with the folder only once all else is gone.
            for entry in [path for path in temp.iterdir() if path.name != _OWNER]:
                _remove(entry)
            (temp / _OWNER).unlink()
    with suppress(OSError):
        temp.rmdir()  # only when empty: made, and killed before it was marked
    for name in (*_OURS, _FILE):
        (folder / name).unlink(missing_ok=True)
    if cluster.made_folder:
        with suppress(OSError):
            folder.rmdir()  # only when empty: others may have put something there


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _text(cluster: LocalCluster) -> str:
    return json.dumps({"version": _VERSION, **asdict(cluster)}, indent=2)


def _write_new(path: Path, text: str) -> None:
    """Writes a file that must not be there yet, for its owner alone."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
