"""What is written down about a running local cluster, readable by its owner alone."""

import json
import os
import shlex
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path

from cluster.errors import InputError
from cluster.local.processes import marked_processes

#: Where the state is kept unless ``--state`` or ``UNIGEOSEG_CLUSTER_STATE`` says otherwise.
DEFAULT_STATE = Path("runs/.cluster")
_FILE = "state.json"
#: Shell exports with which other programs use the cluster.
ENVIRONMENT = "environment"
_VERSION = 1


@dataclass(frozen=True)
class LocalCluster:
    """A running cluster.

    Attributes:
        id: the mark that its processes carry.
        temp: Ray's session folder, logs and sockets; goes with the cluster.
        gcs: ``host:port`` that drivers connect to.
        dashboard: URL of dashboard and job server.
        token_file: file of Ray's access token.
        mlflow: tracking URI.
        s3: endpoint, or ``None``.
        bucket: ``s3://`` URL of the bucket, or ``None``.
        workers: raylets beside the head.
        environment: variables with which commands use the cluster; holds generated secrets.
    """

    id: str
    temp: str
    gcs: str
    dashboard: str
    token_file: str
    mlflow: str
    s3: str | None
    bucket: str | None
    workers: int
    environment: dict[str, str] = field(default_factory=dict)

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
        InputError: the file is damaged or of another version.
    """
    path = folder / _FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("version") != _VERSION:
            raise InputError(f"{path} is of another version of this program; stop that cluster with it")
        return LocalCluster(**content)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"cannot read {path} ({error}); if no cluster runs, delete {folder}") from error


def write_state(folder: Path, cluster: LocalCluster) -> None:
    """Writes it down with mode 0600: it holds credentials."""
    write_private(folder / _FILE, json.dumps({"version": _VERSION, **asdict(cluster)}, indent=2))
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in cluster.environment.items()]
    write_private(folder / ENVIRONMENT, "".join(lines))


def write_private(path: Path, text: str) -> None:
    """Writes a file that only its owner can read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)


def forget(folder: Path, cluster: LocalCluster) -> None:
    """Removes what the cluster left on disk: its state, logs and Ray's session."""
    shutil.rmtree(cluster.temp, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
