"""The job server of a cluster, and what goes wrong on the way to it in plain words."""

import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import requests
from ray.job_submission import JobStatus, JobSubmissionClient

from cluster.errors import InputError
from cluster.submission.token import read_token

_LIVING = (JobStatus.PENDING, JobStatus.RUNNING)


def connect(address: str, token_file: str | None = None) -> Any:
    """A ``JobSubmissionClient`` for a dashboard's URL.

    Args:
        address: ``http://host:port`` of the dashboard.
        token_file: Ray's access token; without it the environment's own, by Ray's rules.

    Raises:
        InputError: nothing answers there, the token is refused, or it would travel where others can read it.
    """
    token = read_token(token_file)
    if token and not is_private(address):
        raise InputError(
            f"the access token would travel in the clear to {address}: use https there, or a tunnel to this "
            "machine (`ray dashboard ray_cluster.yaml`, `kubectl port-forward`) and its http://127.0.0.1:…"
        )
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with plain_errors(address):
        answer = requests.get(f"{address}/api/version", headers=headers, timeout=10)
        if answer.status_code in (401, 403):
            raise InputError(
                f"the cluster at {address} refuses the access token "
                f"({'none was given' if not token else 'wrong or expired'}); set RAY_AUTH_TOKEN or "
                "RAY_AUTH_TOKEN_PATH to the cluster's own (`ray get-auth-token` on its head)"
            )
        answer.raise_for_status()
        return JobSubmissionClient(address, headers=headers)


def is_private(address: str) -> bool:
    """Whether what is sent to a URL stays on this machine or is encrypted."""
    parts = urlsplit(address if "://" in address else f"//{address}")
    if parts.scheme == "https":
        return True
    host = parts.hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@contextmanager
def plain_errors(address: str) -> Iterator[None]:
    """Turns what a connection raises into one line.

    Raises:
        InputError: nothing answers at ``address``.
    """
    try:
        yield
    except (requests.RequestException, ConnectionError) as error:
        raise InputError(
            f"no Ray job server answers at {address} ({type(error).__name__}); give the dashboard's URL with "
            "--address or RAY_API_SERVER_ADDRESS, open the tunnel (`ray dashboard ray_cluster.yaml`), or "
            "start a local cluster: unigeoseg cluster up"
        ) from error


def living_jobs(client: Any) -> list[str]:
    """Ids of the submitted jobs that run or wait."""
    return [job.submission_id for job in client.list_jobs() if job.submission_id and job.status in _LIVING]
