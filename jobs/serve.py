"""``unigeoseg serve``: a model as a service."""

import os
from collections.abc import Callable

import click

from jobs.options import count_range, resource_options, with_options
from jobs.serving import address_options, engine_options, listen_at, upload_limit


def _resources(command: Callable[..., None]) -> Callable[..., None]:
    return with_options(command, resource_options("replica"))


@click.command()
@engine_options
@click.option("--page/--no-page", default=True, show_default=True, help="Serve the page as well.")
@click.option(
    "--label-studio",
    metavar="URL",
    help="Answer as a machine learning backend of this Label Studio, at /labelstudio. Pictures are fetched "
    "from it alone, with the key in LABEL_STUDIO_API_KEY.",
)
@click.option(
    "--replicas",
    default="0",
    show_default=True,
    metavar="N|MIN-MAX",
    help="Copies of the model on Ray Serve, on the cluster of RAY_ADDRESS or on this machine; between MIN "
    "and MAX they follow the requests. 0: the model is in this process.",
)
@_resources
@address_options
def serve(
    model: str,
    images: tuple[str, ...],
    device: str | None,
    queue: int,
    cache_gb: float,
    upload_mb: int,
    page: bool,
    label_studio: str | None,
    replicas: str,
    cpus: float,
    gpus: float,
    host: str,
    port: int,
    token: str | None,
) -> None:
    """Answer instructions over HTTP: PUT /v1/images, POST /v1/segment.

    Also /healthz, /readyz, /metrics and /openapi.json. What waits for the same picture is answered together,
    and what the model saw of a picture is kept for the next instruction; every mask has the bytes that
    predict gives. A full queue is answered with 503 and Retry-After. On SIGTERM nothing new is taken, what
    waits is answered, and the exit code is 0.

    With --replicas an instruction whose replica ended is given to another one, and a picture comes again to
    the replica that has seen it.

    \b
    Examples:
      unigeoseg serve --model runs/quickstart/export --no-page
      unigeoseg serve --model runs/quickstart/export --host 0.0.0.0 --token auto --queue 64
      unigeoseg serve --model runs/quickstart/export --replicas 1-2
      unigeoseg serve --model runs/quickstart/export --label-studio http://127.0.0.1:8080
    """
    fewest, most = count_range(replicas, "--replicas")
    address = listen_at(host, port, token)
    from pipelines.web.app import Setup
    from pipelines.web.engine import Engine
    from pipelines.web.launch import launch
    from pipelines.web.replicas import Scale

    setup = Setup(
        pictures=list(images),
        label_studio=label_studio,
        label_studio_key=os.environ.get("LABEL_STUDIO_API_KEY"),
        token=address.token,
        limits=upload_limit(upload_mb),
        page=page,
    )
    engine = Engine(model, device, queue, round(cache_gb * 2**30))
    scale = Scale(fewest, most, cpus, gpus) if most else None
    launch(engine, setup, address, lambda url: click.echo(f"serving {url}"), scale)
