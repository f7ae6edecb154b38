"""``unigeoseg ablate``: run one of the paper's ablation tables."""

from pathlib import Path
from typing import Any

import click

from jobs.intention import ablation_text
from jobs.options import LOCAL_FOLDER, dry_run_option, emit, json_option, preset_option, set_option
from jobs.settings import load_config
from unigeoseg.errors import UserError


@click.command()
@click.option("--table", type=int, required=True, help="The paper's table: 6, 7, 8, 9 or 13.")
@preset_option(required=False, default="quickstart", show_default=True)
@click.option("--store", help="Store to train and evaluate on. [the preset's synthetic one, built in --out]")
@click.option("--seeds", type=int, default=3, show_default=True, help="Runs of each row.")
@click.option("--out", type=LOCAL_FOLDER, help="Folder. [runs/ablation-<table>-<preset>]")
@click.option(
    "--concurrent", type=int, help="Runs side by side. [as many as the cluster holds or can grow to]"
)
@click.option(
    "--language",
    "languages",
    multiple=True,
    metavar="NAME=FOLDER",
    help="A language model of Table 13: a row's name and a Hugging Face folder. Repeatable.",
)
@set_option
@json_option
@dry_run_option
def ablate(
    table: int,
    preset: str,
    store: str | None,
    seeds: int,
    out: Path | None,
    concurrent: int | None,
    languages: tuple[str, ...],
    sets: tuple[str, ...],
    as_json: bool,
    dry_run: bool,
) -> None:
    """Train every row of an ablation table with several seeds, and print ours beside the paper's.

    Runs that are finished in --out are kept, so the same command goes on after a stop. Each run is a child of
    one MLflow run.

    \b
    Example:
      unigeoseg ablate --table 6 --preset quickstart --seeds 3
    """
    from pipelines.experiments.grid import load_grid

    config = load_config(preset, sets)
    grid = load_grid(table, _languages(languages))
    folder = out or Path(f"runs/ablation-{table}-{config.name}")
    if dry_run:
        emit(_intention(grid, config, store, folder, seeds), as_json, ablation_text)
        return
    from pipelines.experiments.ablate import run_ablation
    from pipelines.experiments.table import table_markdown

    result = run_ablation(grid, config, store, folder, seeds, concurrent)
    emit(result, as_json, lambda found: f"{table_markdown(found)}\n{folder}/table.md, .csv, .json, .png")


def _languages(given: tuple[str, ...]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in given:
        name, sign, path = text.partition("=")
        if not sign or not name or not path:
            raise UserError(
                f"--language {text}: expected NAME=FOLDER, for example deepseek7b=/models/deepseek"
            )
        pairs[name] = path
    return pairs


def _intention(grid: Any, config: Any, store: str | None, folder: Path, seeds: int) -> dict[str, Any]:
    from pipelines.experiments.ablate import ablation_runs

    runs = ablation_runs(grid, config, seeds)
    return {
        "table": grid.table,
        "title": grid.title,
        "store": store or f"{folder}/store",
        "out": str(folder),
        "runs": [
            {"name": r.name, "values": r.cell.values, "finished": bool(r.summary(folder))} for r in runs
        ],
        "steps": config.train.steps or f"{config.train.epochs} epochs",
    }


if __name__ == "__main__":
    from jobs.cli import run as run_command

    run_command(ablate)
