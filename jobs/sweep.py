"""``unigeoseg sweep``: search settings with Ray Tune."""

from pathlib import Path
from typing import Any

import click

from jobs.intention import sweep_text
from jobs.options import LOCAL_FOLDER, dry_run_option, emit, json_option, preset_option, set_option
from jobs.settings import load_config
from unigeoseg.errors import UserError


@click.command()
@click.option(
    "--space",
    "space_file",
    type=click.Path(path_type=Path),
    required=True,
    help="YAML file of the search space, such as jobs/presets/sweeps/lr_lambda.yaml.",
)
@preset_option(required=False, default="quickstart", show_default=True)
@click.option("--store", help="Store to train and evaluate on. [the preset's synthetic one, built in --out]")
@click.option("--trials", type=click.IntRange(min=1), default=8, show_default=True, help="Number of trials.")
@click.option(
    "--search",
    type=click.Choice(["random", "optuna", "grid"]),
    default="random",
    show_default=True,
    help="How values are chosen; grid runs all grid_search values of the space.",
)
@click.option(
    "--scheduler",
    type=click.Choice(["asha", "fifo"]),
    default="asha",
    show_default=True,
    help="asha ends weak trials early; fifo lets all run.",
)
@click.option(
    "--grace", type=click.IntRange(min=1), help="Steps that asha gives every trial. [a fifth of the run]"
)
@click.option(
    "--concurrent", type=int, help="Trials side by side. [as many as the cluster holds or can grow to]"
)
@click.option("--out", type=LOCAL_FOLDER, help="Folder. [runs/sweep-<space>-<preset>]")
@click.option("--resume", is_flag=True, help="Go on with the sweep that was interrupted in --out.")
@set_option
@json_option
@dry_run_option
def sweep(
    space_file: Path,
    preset: str,
    store: str | None,
    trials: int,
    search: str,
    scheduler: str,
    grace: int | None,
    concurrent: int | None,
    out: Path | None,
    resume: bool,
    sets: tuple[str, ...],
    as_json: bool,
    dry_run: bool,
) -> None:
    """Train with different settings, end the weak trials early, and write the best as a preset.

    Trials are children of one MLflow run. `unigeoseg train --preset OUT/best.yaml` trains with the best.

    \b
    Example:
      unigeoseg sweep --space jobs/presets/sweeps/lr_lambda.yaml --search optuna --trials 8
    """
    from pipelines.experiments.space import load_space

    config = load_config(preset, sets)
    space = load_space(space_file, config)
    if search == "grid" and not all(name == "grid_search" for name, _ in space.draws.values()):
        raise UserError(
            f"--search grid needs grid_search entries only in {space_file}; or use --search random"
        )
    folder = out or Path(f"runs/sweep-{space_file.stem}-{config.name}")
    if dry_run:
        intention: dict[str, Any] = {
            "space": {key: {name: list(args)} for key, (name, args) in space.draws.items()},
            "metric": space.metric,
            "trials": trials,
            "search": search,
            "scheduler": scheduler,
            "store": store or f"{folder}/store",
            "out": str(folder),
        }
        emit(intention, as_json, sweep_text)
        return
    from pipelines.experiments.sweep import SweepSettings, run_sweep
    from pipelines.experiments.sweep_report import sweep_markdown

    settings = SweepSettings(trials, search, scheduler, grace, concurrent=concurrent)
    result = run_sweep(space, config, store, folder, settings, resume)
    emit(result, as_json, lambda found: f"{sweep_markdown(found)}\n{folder}/best.yaml, sweep.md, .json, .png")


if __name__ == "__main__":
    from jobs.cli import run as run_command

    run_command(sweep)
