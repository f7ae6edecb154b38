"""``unigeoseg model``: how large a preset's model is, and whether released mode computes what it should."""

from typing import Any

import click

from jobs.options import emit, json_option, preset_option, set_option


@click.command()
@preset_option
@set_option
@json_option
def info(preset: str, sets: tuple[str, ...], as_json: bool) -> None:
    """Count parameters, FLOPs and activation memory of a preset's model by module.

    \b
    Example:
      unigeoseg model info --preset paper
    """
    from jobs.settings import load_config

    config = load_config(preset, sets)  # before torch is imported: a mistyped key is refused at once
    from pipelines.models.info import describe

    emit(describe(config), as_json, _table)


@click.command()
@click.option(
    "--fixture", required=True, metavar="DIR", help="Folder with inputs, outputs and state_spec.json."
)
@click.option("--only", metavar="SET", help="One set of the fixture.")
@json_option
@click.pass_context
def verify(context: click.Context, fixture: str, only: str | None, as_json: bool) -> None:
    """Compare released mode with reference outputs of the released code; exit 1 when they differ.

    
    Example:
      unigeoseg model verify --fixture fixtures/released_256
    """
    from unigeoseg.released.verify import verify as compare

    result = compare(fixture, only, lambda name: click.echo(f"{name} …", err=True))
    emit(result, as_json, _differences)
    if not result["ok"]:
        context.exit(1)


def _differences(result: dict[str, Any]) -> str:
    lines = [f"{'set':<20} {'quantity':<22} {'max abs':>10} {'max rel':>10}"]
    for name, rows in result["sets"].items():
        for quantity, row in rows.items():
            mark = "" if row["ok"] else "  DIFFERS"
            lines.append(f"{name:<20} {quantity:<22} {row['max_abs']:>10.2e} {row['max_rel']:>10.2e}{mark}")
    return "\n".join([*lines, "equal within the tolerances" if result["ok"] else "different"])


def _table(result: dict[str, Any]) -> str:
    rows = [*result["modules"], {"name": "total", **result, "parameters": result["total"]}]
    width = max(len(row["name"]) for row in rows)
    titles = ("parameters", "trainable", "GFLOP forward", "GFLOP backward", "MiB kept")
    lines = [" ".join([f"{'module':<{width}}", *(f"{title:>15}" for title in titles)])]
    for row in rows:
        cells = [
            f"{row['parameters']:,}",
            f"{row['trainable']:,}",
            f"{row['flops_forward'] / 1e9:,.2f}",
            f"{row['flops_backward'] / 1e9:,.2f}",
            f"{row['activation_bytes'] / 2**20:,.1f}",
        ]
        lines.append(" ".join([f"{row['name']:<{width}}", *(f"{cell:>15}" for cell in cells)]))
    assumed = ", ".join(f"{key} {value}" for key, value in result["assumptions"].items())
    return "\n".join([*lines, f"for {assumed}"])
