"""``unigeoseg bench scale``: what the index of a store costs by its number of rows."""

from typing import Any

import click

from jobs.bench import parse_count
from jobs.options import emit, json_option
from unigeoseg.errors import UserError


@click.command()
@click.option(
    "--rows",
    default="100k,1M",
    show_default=True,
    help="Numbers of rows (samples), up to 20M; k and M may follow.",
)
@json_option
def scale(rows: str, as_json: bool) -> None:
    """Measure opening, planning, card, lint's books, and plans of merge and export, by rows of an index.

    \b
    Example:
      unigeoseg bench scale --rows 100k,1M,10M
    """
    from pipelines.bench.scale import MOST_ROWS, bench_scale

    sizes = sorted({parse_count(text, "--rows") for text in rows.split(",")})
    if sizes[-1] > MOST_ROWS:
        raise UserError(
            f"--rows {rows}: at most {MOST_ROWS:,} at a time, so that a disk is not filled unseen"
        )
    emit(bench_scale(sizes, lambda text: click.echo(text, err=True)), as_json, _as_text)


def _as_text(result: dict[str, Any]) -> str:
    from pipelines.bench.scale import PARTS

    rows = result["rows"]
    lines = [f"{'':<12}" + "".join(f"{row['rows']:>22,}" for row in rows) + "  rows"]
    for part in PARTS:
        cells = (f"{row[f'{part}_s']:>12.3f} s{row[f'{part}_mib']:>6.0f} M" for row in rows)
        lines.append(f"{part.replace('_', ' '):<12}" + "".join(cells))
    lines += ["", *(f"{name}: {value:.3g}" for name, value in result["ratios"].items())]
    return "\n".join([*lines, "machine: " + ", ".join(f"{k} {v}" for k, v in result["machine"].items())])
