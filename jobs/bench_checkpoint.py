"""``unigeoseg bench checkpoint``: what a checkpoint costs training."""

import click

from jobs.bench import as_text
from jobs.options import emit, json_option, preset_option, set_option
from unigeoseg.errors import UserError


@click.command()
@preset_option
@click.option(
    "--widths", default="1,4", show_default=True, help="Sizes: factors on the language model's width."
)
@click.option("--saves", default=3, show_default=True, type=click.IntRange(min=1), help="Medians count.")
@click.option("--batch", type=click.IntRange(min=1), help="Images; by default what a worker holds at once.")
@click.option("--folder", metavar="DIR", help="Where to write, a folder or s3://. [a temporary folder]")
@set_option
@json_option
def checkpoint(
    preset: str,
    widths: str,
    saves: int,
    batch: int | None,
    folder: str | None,
    sets: tuple[str, ...],
    as_json: bool,
) -> None:
    """Measure how long a checkpoint holds training up, and what it writes, at several sizes.

    \b
    Example:
      unigeoseg bench checkpoint --preset quickstart --widths 1,4
    """
    from jobs.settings import load_config
    from pipelines.bench.checkpoint import bench_checkpoint

    try:
        factors = [int(text) for text in widths.split(",")]
    except ValueError as error:
        raise UserError(f"--widths {widths}: give whole numbers, for example 1,4") from error
    if min(factors) < 1:
        raise UserError(f"--widths {widths}: a width is at least 1")
    config = load_config(preset, sets)
    result = bench_checkpoint(config, factors, saves, folder, batch, lambda text: click.echo(text, err=True))
    emit(result, as_json, as_text)
