"""``unigeoseg compare``: runs side by side."""

from pathlib import Path

import click

from jobs.options import emit, json_option
from unigeoseg.errors import UserError


@click.command()
@click.argument("runs", nargs=-1, metavar="RUN…")
@click.option("--experiment", help="All runs of this MLflow experiment (train, ablation, sweep).")
@click.option("--best", metavar="METRIC", help="Name the best run by it, such as val/reasoning/gIoU.")
@click.option("--tracking-uri", help="MLflow server or database. [MLFLOW_TRACKING_URI, else runs/mlflow.db]")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("runs/compare"), show_default=True, help="Folder."
)
@json_option
def compare(
    runs: tuple[str, ...],
    experiment: str | None,
    best: str | None,
    tracking_uri: str | None,
    out: Path,
    as_json: bool,
) -> None:
    """Compare runs: settings that differ, metrics per task, curves in one picture, which checkpoint to take.

    A RUN is a folder, a name under runs/, or the id or name of an MLflow run.

    \b
    Example:
      unigeoseg compare runs/first runs/second
      unigeoseg compare --experiment ablation --best val/reasoning/gIoU
    """
    from pipelines.experiments.compare import compare_markdown, compare_runs, write_comparison
    from pipelines.experiments.records import load_record, mlflow_record
    from pipelines.tracking.lookup import experiment_runs, open_client
    from pipelines.tracking.lookup import tracking_uri as resolve

    uri = resolve(tracking_uri)
    if not runs and not experiment:
        raise UserError("name at least one RUN, or an --experiment")
    records = [load_record(run, uri) for run in runs]
    if experiment:
        client = open_client(uri)
        records += [mlflow_record(client, run) for run in experiment_runs(client, experiment)]
    result = compare_runs(records, best)
    paths = write_comparison(result, records, out)
    result["files"] = [str(path) for path in paths]
    emit(result, as_json, lambda found: f"{compare_markdown(found)}\n{', '.join(found['files'])}")


if __name__ == "__main__":
    from jobs.cli import run as run_command

    run_command(compare)
