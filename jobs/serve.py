"""``unigeoseg serve``: a model as a service."""

import click

from jobs.serving import address_options, engine_options, listen_at, upload_limit


@click.command()
@engine_options
@click.option("--page/--no-page", default=True, show_default=True, help="Serve the page as well.")
@address_options
def serve(
    model: str,
    images: tuple[str, ...],
    device: str | None,
    queue: int,
    cache_gb: float,
    upload_mb: int,
    page: bool,
    host: str,
    port: int,
    token: str | None,
) -> None:
    """Answer instructions over HTTP: PUT /v1/images, POST /v1/segment.

    Also /healthz, /readyz, /metrics and /openapi.json. What waits for the same picture is answered together,
    and what the model saw of a picture is kept for the next instruction; every mask has the bytes that
    predict gives. A full queue is answered with 503 and Retry-After. On SIGTERM nothing new is taken, what waits is
    answered, and the exit code is 0.

    \b
    Examples:
      unigeoseg serve --model runs/quickstart/export --no-page
      unigeoseg serve --model runs/quickstart/export --host 0.0.0.0 --token auto --queue 64
    """
    address = listen_at(host, port, token)
    from pipelines.web.app import Setup
    from pipelines.web.launch import Engine, launch

    setup = Setup(list(images), token=address.token, limits=upload_limit(upload_mb), page=page)
    engine = Engine(model, device, queue, round(cache_gb * 2**30))
    launch(engine, setup, address, lambda url: click.echo(f"serving {url}"))
