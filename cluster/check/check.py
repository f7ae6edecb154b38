"""``unigeoseg cluster check``: reads a cluster file, or a folder of them, and says what is missing."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from cluster.check.finding import Report
from cluster.check.kubernetes import check_objects
from cluster.check.ray_file import check_ray_file
from cluster.errors import InputError

_KUSTOMIZE_SECONDS = 60


def check(path: Path) -> Report:
    """Reads what is at ``path``; nothing is asked of a cloud, and nothing is changed.

    Paths in a file for ``ray up`` are those of the folder in which the check runs, as ``ray up`` takes them.

    Args:
        path: a file for ``ray up``, a file of Kubernetes objects, or a folder with ``kustomization.yaml``.

    Raises:
        InputError: it cannot be read, or is none of these.
    """
    documents = _documents(path)
    if len(documents) == 1 and "provider" in documents[0]:
        return check_ray_file(documents[0], str(path))
    if documents and all("apiVersion" in one and "kind" in one for one in documents):
        return check_objects(documents, str(path))
    raise InputError(
        f"{path}: neither a file for `ray up` (it has a provider) nor Kubernetes objects (they have a kind); "
        "try ray_cluster.yaml or cluster/kuberay/overlays/aws"
    )


def _documents(path: Path) -> list[dict[str, Any]]:
    if path.name == "kustomization.yaml":
        path = path.parent
    if path.is_dir() and not (path / "kustomization.yaml").is_file():
        raise InputError(f"{path}: a folder without kustomization.yaml; give a cluster file, or an overlay")
    try:
        text = _rendered(path) if path.is_dir() else path.read_text(encoding="utf-8")
        found = [one for one in yaml.safe_load_all(text) if one is not None]
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
    if not all(isinstance(one, dict) for one in found):
        raise InputError(f"{path}: not a cluster file: its YAML is no mapping")
    return found


def _rendered(folder: Path) -> str:
    """What kustomize makes of a folder.

    Raises:
        InputError: kubectl is missing, or refuses the folder.
    """
    program = shutil.which("kubectl")
    if program is None:
        raise InputError(
            f"{folder}: kubectl is needed to put its files together; install it, or give the file that "
            f"`kubectl kustomize {folder}` writes elsewhere"
        )
    done = subprocess.run(
        [program, "kustomize", str(folder)],
        capture_output=True,
        text=True,
        timeout=_KUSTOMIZE_SECONDS,
        check=False,
    )
    if done.returncode:
        raise InputError(f"{folder}: kustomize refuses it: {' '.join(done.stderr.split())}")
    return done.stdout
