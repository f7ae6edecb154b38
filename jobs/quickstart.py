"""``unigeoseg quickstart``: the whole path at small size, in minutes on two CPU cores."""

from typing import Any

import click

from jobs.options import dry_run_option, emit, json_option, preset_option, print_config_option, set_option
from jobs.settings import load_config
from jobs.settings import print_config as as_yaml

_COLUMNS = (
    ("n", "n"),
    ("gIoU", "gIoU"),
    ("cIoU", "cIoU"),
    ("untrained", "untrained_gIoU"),
    ("all fg", "all_foreground_gIoU"),
    ("own", "swap_own_gIoU"),
    ("swapped", "swapped_gIoU"),
    ("category", "category_gIoU"),
    ("box", "filled_box_gIoU"),
)


@click.command()
@click.option("--seed", type=int, help="Seed of the training; the preset's by default.")
@click.option("--run", default="runs/quickstart", show_default=True, help="Run folder.")
@preset_option(required=False, default="quickstart", show_default=True)
@set_option
@json_option
@dry_run_option
@print_config_option
def quickstart(
    seed: int | None,
    run: str,
    preset: str,
    sets: tuple[str, ...],
    as_json: bool,
    dry_run: bool,
    print_config: bool,
) -> None:
    """Build a synthetic store, train on it, evaluate on held-out scenes, and write a report.

    \b
    Example:
      unigeoseg quickstart --seed 1 --run runs/first --set train.steps=200
    """
    chosen = sets if seed is None else (*sets, f"seed={seed}")
    config = load_config(preset, chosen)
    if print_config:
        click.echo(as_yaml(config), nl=False)
        return
    if dry_run:
        emit(_intention(config, run), as_json, lambda plan: "\n".join(f"{k}: {v}" for k, v in plan.items()))
        return
    from pipelines.experiments.quickstart import run_quickstart

    summary = run_quickstart(config, run)
    emit(summary, as_json, lambda result: f"{results_table(result)}\n\n{_paths(run, result)}")


def results_table(summary: dict[str, Any]) -> str:
    """The tasks of ``summary.json`` as a short table."""
    lines = [f"{'task':<12}" + "".join(f"{title:>10}" for title, _ in _COLUMNS)]
    for task, values in summary["tasks"].items():
        lines.append(f"{task:<12}" + "".join(f"{_number(values.get(key)):>10}" for _, key in _COLUMNS))
    lines.append("untrained, all fg: gIoU of fresh weights and of an all-foreground mask on the same samples")
    lines.append(
        "own, swapped: gIoU under the own instruction and under one for another target of the category"
    )
    lines.append("category, box: oracles, all of the right category and the filled box of the target")
    return "\n".join(lines)


def _number(value: Any) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def _paths(run: str, summary: dict[str, Any]) -> str:
    where = run.rstrip("/")
    rows = [
        ("report", f"{where}/report.html"),
        ("results", f"{where}/summary.json"),
        ("model", f"{where}/export"),
        ("checkpoint", f"{where}/{summary['checkpoint']}"),
        ("store", f"{where}/store"),
    ]
    minutes, seconds = divmod(round(summary["wall_seconds"]), 60)
    lines = [f"{name:<11}{path}" for name, path in rows]
    lines.append(f"{summary['steps']} steps, {summary['samples_seen']} samples, {minutes} min {seconds} s")
    lines.append("MLflow     make mlflow")
    return "\n".join([*lines, *(f"warning: {text}" for text in summary["warnings"])])


def _intention(config: Any, run: str) -> dict[str, Any]:
    steps = config.train.steps or f"{config.train.epochs} epochs"
    return {
        "store": f"{run.rstrip('/')}/store",
        "run": run,
        "steps": steps,
        "workers": config.scale.workers,
        "seed": config.seed,
    }
