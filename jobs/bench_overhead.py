"""``unigeoseg bench overhead``: what Ray Train adds to a step."""

import click

from jobs.bench import as_text
from jobs.options import emit, json_option, preset_option, set_option


@click.command()
@preset_option
@click.option(
    "--steps",
    default=3,
    show_default=True,
    type=click.IntRange(min=1),
    help="Of each side in a round; their median counts.",
)
@click.option(
    "--rounds",
    default=12,
    show_default=True,
    type=click.IntRange(min=3),
    help="Each gives a ratio; their median counts.",
)
@click.option(
    "--step-seconds",
    default=1.0,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    help="Wanted length of a step; micro-batches are added until it has it.",
)
@set_option
@json_option
def overhead(
    preset: str, steps: int, rounds: int, step_seconds: float, sets: tuple[str, ...], as_json: bool
) -> None:
    """Time the engine's step in a plain process and in a Ray Train worker, in turn, on data in memory.

    Both processes live all along and work a few steps at a time, so other work on the machine hits both. An
    overhead is shown only if low_percent and high_percent, its 95 % bounds, are on the same side of zero.

    Ray starts its workers at niceness 15, the plain process has this one's: where no core is free, that shows
    too. RAY_worker_niceness=0 before a cluster starts leaves it out.

    \b
    Example:
      unigeoseg bench overhead --preset quickstart
    """
    from jobs.settings import load_config
    from pipelines.bench.overhead import bench_overhead

    config = load_config(preset, sets)
    result = bench_overhead(config, steps, rounds, step_seconds, lambda text: click.echo(text, err=True))
    emit(result, as_json, as_text)
