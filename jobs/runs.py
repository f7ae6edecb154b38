"""``unigeoseg runs`` and ``unigeoseg resume``: which runs there are, and going on with one."""

from dataclasses import asdict
from typing import Any

import click

from jobs.options import emit, json_option, set_option


@click.command()
@click.argument("folder", default="runs")
@json_option
def runs(folder: str, as_json: bool) -> None:
    """List the runs in FOLDER (default: runs) with their state, the latest first.

    A run whose job was killed outright is set to killed, here and in MLflow, and rows that MLflow missed are
    sent. FOLDER may be an s3:// prefix.

    \b
    Example:
      unigeoseg runs
      unigeoseg runs s3://bucket/runs --json
    """
    from pipelines.runs.listing import list_runs

    emit({"folder": folder, "runs": [asdict(row) for row in list_runs(folder)]}, as_json, _table)


@click.command()
@click.argument("run", metavar="RUN")
@click.option("--store", help="The store, if it was moved; it must be the same data.")
@click.option(
    "--evaluate/--no-evaluate",
    default=True,
    show_default=True,
    help="Evaluate on held-out scenes after it.",
)
@click.option(
    "--allow-config-change",
    "allow",
    multiple=True,
    metavar="KEY",
    help="Let this setting differ from the run's own (with --set). Repeatable.",
)
@set_option
@json_option
def resume(
    run: str, store: str | None, evaluate: bool, allow: tuple[str, ...], sets: tuple[str, ...], as_json: bool
) -> None:
    """Go on with RUN, a name under runs/ or a path, from its newest whole checkpoint.

    Configuration and store are the run's own.

    \b
    Example:
      unigeoseg resume dubai
      unigeoseg resume s3://bucket/runs/first --set scale.workers=4
    """
    from jobs.settings import override
    from jobs.train import as_text, run_path
    from pipelines.runs.listing import resumable
    from pipelines.train.driver.launcher import train as run_training
    from unigeoseg.errors import UserError

    path = run_path(run, None)
    _, config, known = resumable(path)
    if store is None and known is None:
        raise UserError(f"{path} does not say which store it was trained on; give it with --store")
    config = override(config, sets)
    summary = run_training(config, store or str(known), path, resume=True, evaluate=evaluate, allow=allow)
    emit(summary, as_json, lambda result: as_text(path, result))


def _table(result: dict[str, Any]) -> str:
    lines = [f"{'run':<28} {'state':<9} {'steps':>15} {'loss':>8} {'best':>18} {'last sign':>10}"]
    for row in result["runs"]:
        share = f" {row['step'] / row['steps']:4.0%}" if row["steps"] else ""
        steps = f"{row['step']}/{row['steps'] or '?'}{share}"
        best = f"{row['best']['name']} {row['best']['value']:.3f}" if row["best"] else "-"
        loss = "-" if row["loss"] is None else f"{row['loss']:.3f}"
        age = _age(row["age_s"])
        lines.append(f"{row['name']:<28} {row['state']:<9} {steps:>15} {loss:>8} {best:>18} {age:>10}")
        if row["error"]:
            lines.append(f"    {row['error'][:110]}")
    if not result["runs"]:
        lines.append(f"no runs in {result['folder']}")
    return "\n".join(lines)


def _age(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
