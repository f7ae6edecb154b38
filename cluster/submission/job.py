"""One job: command, variables and tree, handed to the job server."""

import os
import shlex
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.errors import InputError
from cluster.submission.client import plain_errors
from cluster.submission.sealed import SEALED, seal
from cluster.submission.token import read_token
from cluster.submission.tree import Tree, stage
from cluster.submission.worker import HOOK

_STOP_SECONDS = 60


@dataclass(frozen=True)
class Order:
    """What is to run.

    Attributes:
        command: with arguments; ``python`` is that of the cluster.
        tree: uploaded as its working directory.
        environment: variables that anyone may see.
        secrets: variables that nobody may see.
        metadata: shown on the job's page.
    """

    command: Sequence[str]
    tree: Tree
    environment: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)


def take_by_name(names: Sequence[str]) -> dict[str, str]:
    """Values of variables of this process.

    Raises:
        InputError: one is not set, or a value was given in place of a name.
    """
    found = {}
    for name in names:
        if "=" in name:
            raise InputError(
                f"{name.partition('=')[0]}: give the name alone; the value is taken from the environment"
            )
        if name not in os.environ:
            raise InputError(f"the variable {name} is not set here; export it before submitting")
        found[name] = os.environ[name]
    return found


def submit(client: Any, address: str, order: Order, token_file: str | None = None) -> str:
    """Uploads the tree and starts the job; returns its id.

    Raises:
        InputError: the server does not answer, or secrets are to go to a cluster without a token.
    """
    runtime: dict[str, Any] = {"env_vars": dict(order.environment)}
    if order.secrets:
        token = read_token(token_file)
        if token is None:
            raise InputError(
                "secrets are sealed with the cluster's access token, and there is none; start it with "
                "RAY_AUTH_MODE=token, or give it the secrets itself (instance role, Kubernetes secret)"
            )
        runtime["env_vars"][SEALED] = seal(order.secrets, token)
        runtime["worker_process_setup_hook"] = HOOK
    entry = ["python", "-m", "cluster.submission.entry", *order.command]
    with tempfile.TemporaryDirectory(prefix="unigeoseg-tree-") as folder, plain_errors(address):
        working = stage(order.tree, Path(folder))
        job: str = client.submit_job(
            # No shell in between: of a job that is stopped while it starts Ray would end the shell alone.
            entrypoint=f"exec {shlex.join(entry)}",
            runtime_env={"working_dir": str(working), **runtime},
            metadata={**order.metadata, **({"commit": order.tree.commit} if order.tree.commit else {})},
        )
    return job


def stop(client: Any, address: str, job: str) -> bool:
    """Stops a job and waits until it has ended; whether it was running.

    Raises:
        InputError: there is no such job, or it does not end.
    """
    with plain_errors(address):
        try:
            running = bool(client.stop_job(job))
        except RuntimeError as error:
            raise InputError(f"no job {job} on this cluster; `unigeoseg submit list` shows them") from error
        deadline = time.monotonic() + _STOP_SECONDS
        while not client.get_job_status(job).is_terminal():
            if time.monotonic() > deadline:
                raise InputError(
                    f"{job} was told to stop and still runs after {_STOP_SECONDS} s, perhaps writing a last "
                    f"checkpoint: `unigeoseg submit follow {job}` shows it"
                )
            time.sleep(0.5)
    return running
