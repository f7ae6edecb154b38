"""``unigeoseg bench data``: our stream beside bare decoding and other loaders."""

import logging

import click

from jobs.bench import as_text
from jobs.options import emit, json_option, preset_option, set_option
from jobs.settings import load_config


@click.command()
@click.argument("store")
@preset_option
@click.option(
    "--samples", default=2048, show_default=True, type=click.IntRange(min=64), help="Plan positions."
)
@click.option(
    "--repeats", default=3, show_default=True, type=click.IntRange(min=1), help="Rounds; medians count."
)
@set_option
@json_option
def data(store: str, preset: str, samples: int, repeats: int, sets: tuple[str, ...], as_json: bool) -> None:
    """Measure images per second from store to batch, side by side with other loaders.

    \b
    Example:
      unigeoseg bench data stores/synthetic --preset quickstart --set model.image_size=512
    """
    import ray

    from pipelines.bench.data import bench_data

    config = load_config(preset, sets)
    started = not ray.is_initialized()
    if started:  # RAY_ADDRESS, or a local one
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING)
    try:
        result = bench_data(config, store, samples, repeats, lambda text: click.echo(text, err=True))
    finally:
        if started:
            ray.shutdown()
    emit(result, as_json, as_text)
