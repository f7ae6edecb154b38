"""``unigeoseg bench memory``: what the planner says of memory, held against real steps."""

import click

from jobs.bench import as_text
from jobs.options import emit, json_option, preset_option, set_option
from unigeoseg.errors import UserError

_ON = {"off": (False,), "on": (True,), "both": (False, True)}


@click.command()
@preset_option
@click.option("--stages", help="ZeRO stages, as 0,2; default: all that the preset's optimizer takes.")
@click.option(
    "--checkpointing",
    type=click.Choice(list(_ON)),
    default="both",
    show_default=True,
    help="Activation checkpointing.",
)
@click.option("--workers", default=1, show_default=True, type=click.IntRange(min=1), help="On this machine.")
@click.option("--batch", type=click.IntRange(min=1), help="Images; by default what a worker holds at once.")
@set_option
@json_option
def memory(
    preset: str,
    stages: str | None,
    checkpointing: str,
    workers: int,
    batch: int | None,
    sets: tuple[str, ...],
    as_json: bool,
) -> None:
    """Measure the memory of a training step under each ZeRO stage, beside the number of `unigeoseg plan`.

    On a GPU the peak of allocated memory, on a CPU the growth of resident memory. Small models say little
    there: the libraries' own memory is then a large part.

    \b
    Example:
      unigeoseg bench memory --preset small --stages 2 --workers 2 --batch 2
    """
    from jobs.settings import load_config
    from pipelines.bench.memory import bench_memory

    try:
        numbers = None if stages is None else [int(text) for text in stages.split(",")]
    except ValueError as error:
        raise UserError(f"--stages {stages}: give some of 0,1,2,3") from error
    if numbers is not None and not set(numbers) <= {0, 1, 2, 3}:
        raise UserError(f"--stages {stages}: give some of 0,1,2,3")
    found = bench_memory(
        load_config(preset, sets),
        numbers,
        _ON[checkpointing],
        workers,
        batch,
        lambda text: click.echo(text, err=True),
    )
    emit(found, as_json, as_text)
