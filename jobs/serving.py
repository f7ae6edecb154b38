"""What the commands that listen have in common."""

from collections.abc import Callable
from typing import Any

import click

from jobs.options import device_option, with_options

_ENGINE: list[Callable[[Any], Any]] = [
    click.option(
        "--model",
        required=True,
        metavar="EXPORT|RUN|REF",
        help="Export folder, a run with one, s3://…, models:/NAME@ALIAS or hf://ORG/NAME.",
    ),
    click.option(
        "--image",
        "images",
        multiple=True,
        metavar="FILE",
        help="A picture or raster of any size to offer; path or URL. Repeatable.",
    ),
    device_option,
    click.option(
        "--queue",
        type=click.IntRange(1),
        default=32,
        show_default=True,
        help="Instructions that may wait; more are answered with 503 and Retry-After.",
    ),
    click.option(
        "--cache-gb",
        type=click.FloatRange(0),
        default=1,
        show_default=True,
        help="What the model saw of the latest pictures, kept for the next instruction.",
    ),
    click.option(
        "--upload-mb", type=click.IntRange(1), default=512, show_default=True, help="Largest upload."
    ),
]
_ADDRESS: list[Callable[[Any], Any]] = [
    click.option("--host", default="127.0.0.1", show_default=True, help="Any other needs --token."),
    click.option(
        "--port", type=click.IntRange(0, 65535), default=8230, show_default=True, help="0: one that is free."
    ),
    click.option(
        "--token",
        envvar="UNIGEOSEG_TOKEN",
        metavar="auto|TEXT",
        help="That callers must know: auto makes one, UNIGEOSEG_TOKEN keeps it off the command line.",
    ),
]


def engine_options(command: Callable[..., None]) -> Callable[..., None]:
    """Options of the model: parameters model, images, device, queue, cache_gb, upload_mb."""
    return with_options(command, _ENGINE)


def address_options(command: Callable[..., None]) -> Callable[..., None]:
    """Options of the address: parameters host, port, token."""
    return with_options(command, _ADDRESS)


def listen_at(host: str, port: int, token: str | None) -> Any:
    """Where to listen.

    Raises:
        UserError: the extra is not installed, or others could reach it without a token.
    """
    from unigeoseg.errors import UserError

    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"{error.name} is not installed, which the page and the service need: in the checkout, pip "
            "install '.[app]'"
        ) from error
    from pipelines.web.listening import Address

    return Address.choose(host, port, token)


def upload_limit(megabytes: int) -> Any:
    """Limits of requests with uploads of so many MB."""
    from pipelines.web.guard import Limits

    return Limits(upload=megabytes * 2**20)
