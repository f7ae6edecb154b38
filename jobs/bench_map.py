"""``unigeoseg bench map``: what a map costs beside its model."""

import click

from jobs.bench import as_text
from jobs.options import device_option, emit, json_option


@click.command("map")
@click.option("--model", required=True, metavar="EXPORT|RUN|REF", help="Whose windows are mapped.")
@click.option(
    "--windows",
    default=8,
    show_default=True,
    type=click.IntRange(2, 12),
    help="On a side of the raster.",
)
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1), help="The best one counts.")
@device_option
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Windows at once.")
@json_option
def map_command(model: str, windows: int, rounds: int, device: str | None, batch: int, as_json: bool) -> None:
    """Measure windows per second: a whole map (reading, blending, outlines, files), and the bare model.

    \b
    Example:
      unigeoseg bench map --model runs/quickstart/export --windows 6
    """
    from pipelines.bench.map import bench_map

    emit(bench_map(model, windows, rounds, device, batch), as_json, as_text)
