"""A development S3 server on loopback: in memory, gone when it stops.

``python -m cluster.s3`` prints the variables to export; tests use :class:`LocalS3`.
"""

import json
import logging
import os
import signal
import socket
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

import click
import requests

from cluster.errors import InputError

HOST = "127.0.0.1"
_REGION = "us-east-1"
_USER = "unigeoseg"


class LocalS3:
    """An S3 server of the moto package with one bucket, as a context manager.

    Args:
        bucket: made at the start.
        port: 0 lets the system choose.
        keys: generates a key pair and refuses all others.

    Raises:
        InputError: on entering, when moto is not installed or the port is taken.
    """

    def __init__(self, bucket: str = "unigeoseg", port: int = 0, keys: bool = False) -> None:
        self.bucket, self.port, self._with_keys = bucket, port, keys
        self._keys = ("local", "local-secret")
        self._server: Any = None

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs: endpoint, keys and region."""
        return {
            "AWS_ENDPOINT_URL": f"http://{HOST}:{self.port}",
            "AWS_ACCESS_KEY_ID": self._keys[0],
            "AWS_SECRET_ACCESS_KEY": self._keys[1],
            "AWS_REGION": _REGION,
            "AWS_DEFAULT_REGION": _REGION,
        }

    @property
    def url(self) -> str:
        """``s3://bucket``."""
        return f"s3://{self.bucket}"

    def __enter__(self) -> "LocalS3":
        try:
            from moto.server import ThreadedMotoServer
        except ImportError as error:
            raise InputError(
                f"the development S3 server needs moto ({error}); it is in the dev extra: "
                'pip install -c constraints.txt -e ".[dev]"'
            ) from error
        require_free_port(self.port)
        logging.getLogger("werkzeug").setLevel(logging.WARNING)  # a line a request otherwise
        self._server = ThreadedMotoServer(ip_address=HOST, port=self.port, verbose=False)
        self._server.start()
        self.port = self._server.get_host_and_port()[1]
        self._client("s3").create_bucket(Bucket=self.bucket)
        if self._with_keys:
            self._require_keys()
        return self

    def _client(self, service: str) -> Any:
        import boto3

        return boto3.client(
            service,
            endpoint_url=self.environment["AWS_ENDPOINT_URL"],
            aws_access_key_id=self._keys[0],
            aws_secret_access_key=self._keys[1],
            region_name=_REGION,
        )

    def _require_keys(self) -> None:
        """Makes one user with a generated key pair, and has the server check signatures from now on."""
        iam = self._client("iam")
        iam.create_user(UserName=_USER)
        policy = {
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}],
        }
        iam.put_user_policy(UserName=_USER, PolicyName=_USER, PolicyDocument=json.dumps(policy))
        made = iam.create_access_key(UserName=_USER)["AccessKey"]
        requests.post(f"{self.environment['AWS_ENDPOINT_URL']}/moto-api/reset-auth", data=b"0", timeout=10)
        self._keys = (made["AccessKeyId"], made["SecretAccessKey"])

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.stop()


def require_free_port(port: int) -> None:
    """Refuse a port of loopback that is in use; 0 is always free.

    Raises:
        InputError: something listens on it already.
    """
    with socket.socket() as probe:
        # As servers do: a port whose last connections are still closing counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise InputError(
                f"cannot listen on {HOST}:{port} ({error.strerror}); choose another with --port"
            ) from error


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=0, show_default="chosen by the system")
@click.option("--bucket", default="unigeoseg", show_default=True, help="Bucket to make.")
@click.option("--keys", is_flag=True, help="Generate a key pair and refuse all others.")
@click.option("--tell", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Write the variables there as JSON, for you alone to read, and print no key.")  # fmt: skip
def main(port: int, bucket: str, keys: bool, tell: Path | None) -> None:
    """Serve S3 on loopback until interrupted; what is stored is lost at the end.

    Example: python -m cluster.s3 --port 9123
    """
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with LocalS3(bucket, port, keys) as server:
        if tell is not None:
            _tell(tell, server.environment)
        else:
            for name, value in server.environment.items():
                click.echo(f"export {name}={value}")
        click.echo(f"# serving {server.url}, process {os.getpid()}; Ctrl-C stops it")
        stop.wait()


def _tell(file: Path, variables: dict[str, str]) -> None:
    """Writes a file of the owner's alone that has its name only when it is whole."""
    partial = file.with_name(f"{file.name}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        json.dump(variables, stream)
    partial.replace(file)


if __name__ == "__main__":
    main()
