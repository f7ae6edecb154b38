"""``unigeoseg app``: a page to try a model and look at results."""

import click

from jobs.serving import address_options, engine_options, listen_at, upload_limit


@click.command()
@engine_options
@click.option("--store", metavar="STORE", help="A store to look at, truth beside answers.")
@click.option(
    "--evaluation",
    "evaluations",
    multiple=True,
    metavar="DIR",
    help="The --out of an evaluation to look at, worst first; twice: two models side by side.",
)
@click.option(
    "--map", "maps", multiple=True, metavar="DIR", help="The --out of a map, over its raster. Repeatable."
)
@address_options
def app(
    model: str,
    images: tuple[str, ...],
    device: str | None,
    queue: int,
    cache_gb: float,
    upload_mb: int,
    store: str | None,
    evaluations: tuple[str, ...],
    maps: tuple[str, ...],
    host: str,
    port: int,
    token: str | None,
) -> None:
    """Open a page in the browser to try a model: points, boxes, phrases, questions.

    Everything comes from this process; nothing is fetched from other hosts. Without --host it can be reached
    from this machine alone. Uploads are deleted when they are no longer used.

    \b
    Examples:
      unigeoseg app --model runs/quickstart/export
      unigeoseg app --model runs/quickstart/export --image city.tif --store runs/quickstart/store
      unigeoseg app --model runs/quickstart/export --evaluation runs/quickstart/evaluation --map lakes
    """
    address = listen_at(host, port, token)
    from pipelines.web.app import Setup
    from pipelines.web.engine import Engine
    from pipelines.web.launch import launch

    setup = Setup(
        pictures=list(images),
        store=store,
        evaluations=list(evaluations),
        maps=list(maps),
        token=address.token,
        limits=upload_limit(upload_mb),
    )
    engine = Engine(model, device, queue, round(cache_gb * 2**30))
    launch(engine, setup, address, lambda url: click.echo(f"open {url}  (Ctrl+C ends it)"))
