"""The MLflow UI on a runs folder's SQLite store: ``python -m cluster.mlflow_ui --store runs/mlflow.db``."""

import os
import sys
from pathlib import Path

import click

from cluster.errors import InputError
from cluster.mlflow_settings import MLFLOW_SETTINGS
from cluster.s3 import HOST, require_free_port

_SQLITE = b"SQLite format 3\x00"


@click.command()
@click.option("--store", type=click.Path(path_type=Path), default=Path("runs/mlflow.db"), show_default=True)
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True)
def main(store: Path, port: int) -> None:
    """Serve the MLflow UI on loopback until interrupted.

    Example: python -m cluster.mlflow_ui --store runs/mlflow.db --port 5001
    """
    check_store(store)
    require_free_port(port)
    click.echo(f"MLflow UI: http://{HOST}:{port} (Ctrl-C stops it)", err=True)
    uri = f"sqlite:///{store.resolve()}"
    command = ["-m", "mlflow", "server", "--backend-store-uri", uri, "--host", HOST, "--port", str(port)]
    os.environ.update(MLFLOW_SETTINGS)
    # The server takes this process's place, so that signals reach it.
    os.execv(sys.executable, [sys.executable, *command, "--workers", "1"])


def check_store(store: Path) -> None:
    """Refuse a path that is no SQLite file.

    Raises:
        InputError: it is missing, unreadable or something else.
    """
    try:
        with store.open("rb") as file:
            head = file.read(len(_SQLITE))
    except FileNotFoundError:
        raise InputError(
            f"no MLflow store at {store}; train first (make quickstart), or give its path with --store"
        ) from None
    except OSError as error:
        raise InputError(f"cannot read {store}: {error.strerror}") from error
    if head != _SQLITE:
        raise InputError(f"{store} is not an MLflow SQLite store; give the path of a mlflow.db")


if __name__ == "__main__":
    main()
