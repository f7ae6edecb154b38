"""``unigeoseg evaluate``: a model on a split of a store."""

from typing import Any

import click

from jobs.options import emit, json_option


@click.command()
@click.option("--model", required=True, metavar="EXPORT|RUN", help="Export folder, or a run with one.")
@click.option("--data", required=True, metavar="STORE", help="Store: a folder or s3://…")
@click.option("--split", default="val", show_default=True, help="Split of the store.")
@click.option(
    "--out", metavar="DIR", help="Writes evaluation.json, evaluation.md and per_sample.parquet there."
)
@click.option("--save-predictions", is_flag=True, help="Keep each predicted mask as RLE in the Parquet file.")
@click.option(
    "--workers",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Ray actors; 0: in this process. The numbers do not depend on it.",
)
@click.option("--gpus-per-worker", type=click.FloatRange(0), default=0, show_default=True)
@click.option("--max-samples", type=click.IntRange(1), help="At most so many samples of each task.")
@click.option("--seed", default=0, show_default=True, help="Of the subset and the confidence intervals.")
@click.option("--batch", type=click.IntRange(1), default=16, show_default=True, help="Images at once.")
@json_option
def evaluate(
    model: str,
    data: str,
    split: str,
    out: str | None,
    save_predictions: bool,
    workers: int,
    gpus_per_worker: float,
    max_samples: int | None,
    seed: int,
    batch: int,
    as_json: bool,
) -> None:
    """Measure gIoU, cIoU and Pr@ of a model on a split of a store, per task.

    \b
    unigeoseg evaluate --model runs/quickstart/export --data stores/quickstart --split val --out eval
    """
    from pipelines.evaluate.command import evaluate_command

    if save_predictions and not out:
        raise click.UsageError("--save-predictions needs --out DIR to save them in")
    result = evaluate_command(
        model=model,
        data=data,
        split=split,
        out=out,
        save_predictions=save_predictions,
        workers=workers,
        gpus_per_worker=gpus_per_worker,
        max_samples=max_samples,
        seed=seed,
        images=batch,
    )
    emit(result, as_json, lambda r: _text(r, out))


def _text(result: dict[str, Any], out: str | None) -> str:
    from pipelines.evaluate.tables import terminal_table

    return terminal_table(result) + (
        f"\n{out}/evaluation.json, {out}/per_sample.parquet, {out}/evaluation.md" if out else ""
    )
