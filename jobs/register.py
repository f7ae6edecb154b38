"""``unigeoseg register``: a run's model into MLflow's registry."""

from pathlib import Path

import click

from jobs.options import emit, json_option
from pipelines.storage.secrets import reveal
from unigeoseg.errors import UserError


@click.command()
@click.argument("run", metavar="RUN")
@click.option("--alias", help="Alias that points to this version from now on, such as best.")
@click.option("--name", default="unigeoseg", show_default=True, help="Name of the registered model.")
@click.option("--tracking-uri", help="MLflow server or database. [where the run was recorded]")
@json_option
def register(run: str, alias: str | None, name: str, tracking_uri: str | None, as_json: bool) -> None:
    """Register the export of a finished run, so that models:/NAME@ALIAS names it.

    \b
    Example:
      unigeoseg register runs/quickstart --alias best
      unigeoseg predict --model models:/unigeoseg@best --image scene.png --text "the largest lake" --out out
    """
    from pipelines.evaluate.models import find_export
    from pipelines.runs.folder import RunFolder
    from pipelines.runs.mlflow_link import MLFLOW
    from pipelines.tracking.registry import register_export

    local = Path("runs") / run
    folder = RunFolder(str(local) if local.is_dir() else run)
    known = folder.read_json(MLFLOW)
    if not known:
        raise UserError(
            f"{run} is no run folder with an MLflow run (mlflow.json is missing); give its folder"
        )
    if not known["run_id"]:
        raise UserError(f"{run} has no MLflow run: MLflow was out of reach while it trained")
    tags = {"run.folder": folder.path}
    result = register_export(
        known["run_id"], find_export(folder.path), name, alias, tracking_uri or reveal(known["uri"]), tags
    )
    emit(result, as_json, lambda r: f"{r['uri']} (version {r['version']}), from run {r['run_id']}")


if __name__ == "__main__":
    from jobs.cli import run as run_command

    run_command(register)
