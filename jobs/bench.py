"""``unigeoseg bench``: what the parts cost on this machine, each beside what it is compared with."""

from typing import Any

import click

from jobs.lazy import Entry, LazyGroup
from jobs.options import emit, json_option
from unigeoseg.errors import UserError

_ENTRIES = {
    "step": Entry("jobs.bench_step", "step", "Time of a training step, part by part."),
    "build": Entry("jobs.bench_build", "build", "Tiles per second of each construction step."),
    "scale": Entry("jobs.bench_scale", "scale", "What an index costs by its number of rows."),
    "data": Entry("jobs.bench_data", "data", "Samples per second from store to batch, beside other loaders."),
    "checkpoint": Entry("jobs.bench_checkpoint", "checkpoint", "What a checkpoint costs training."),
    "memory": Entry("jobs.bench_memory", "memory", "Memory of a training step beside the planner's number."),
    "map": Entry("jobs.bench_map", "map_command", "Windows per second of a map beside the bare model."),
    "overhead": Entry("jobs.bench_overhead", "overhead", "What Ray Train adds to a step."),
}


@click.group(cls=LazyGroup, entries=_ENTRIES)
def bench() -> None:
    """Measure the parts on this machine.

    \b
    Example:
      unigeoseg bench plan --json
    """


@bench.command()
@click.option(
    "--samples", default="1.15M,100M,1B", show_default=True, help="Numbers of samples; k, M and B may follow."
)
@click.option(
    "--positions", default=1 << 20, show_default=True, type=click.IntRange(min=1), help="Planned at a time."
)
@json_option
def plan(samples: str, positions: int, as_json: bool) -> None:
    """Measure planning: seconds per million positions and memory, from step 0 and from step 10 million.

    \b
    Example:
      unigeoseg bench plan --samples 1.15M,100M
    """
    from pipelines.bench.plan import bench_plan

    sizes = [parse_count(text) for text in samples.split(",")]
    emit(bench_plan(sizes, positions, lambda text: click.echo(text, err=True)), as_json, as_text)


def parse_count(text: str, option: str = "--samples") -> int:
    """``"1.15M"`` as 1150000.

    Raises:
        UserError: no number of samples.
    """
    factor = {"k": 10**3, "M": 10**6, "B": 10**9}.get(text.strip()[-1:], 1)
    try:
        count = round(float(text.strip().rstrip("kMB")) * factor)
    except ValueError as error:
        raise UserError(f"{option} {text}: expected a number such as 20000, 1.15M or 1B") from error
    if count < 1000:
        raise UserError(f"{option} {text}: at least 1000")
    return count


def as_text(result: dict[str, Any]) -> str:
    """A table of the rows, then the ratios and the machine."""
    rows = result["rows"]
    names = [name for name in rows[0] if name != "name"] if rows else []
    names += [n for row in rows for n in row if n not in (*names, "name")]
    lines = []
    for row in rows:
        lines.append(row["name"])
        lines += [f"  {name:<28}{_short(row[name])}" for name in names if name in row]
    lines += ["", *(f"{name}: {_short(value)}" for name, value in result["ratios"].items())]
    lines.append("machine: " + ", ".join(f"{k} {v}" for k, v in result["machine"].items()))
    return "\n".join(lines)


def _short(value: Any) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else str(value)
