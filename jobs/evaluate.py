"""``unigeoseg evaluate``: a model on a split of a store or a benchmark."""

from typing import Any, Literal

import click

from jobs.options import emit, json_option, threshold_option, turn_option


@click.command()
@click.option("--model", required=True, metavar="EXPORT|RUN", help="Export folder, or a run with one.")
@click.option(
    "--data", required=True, metavar="STORE|BENCHMARK", help="Store, or a benchmark's own folder; also s3://…"
)
@click.option(
    "--layout",
    metavar="NAME",
    help="Layout of a benchmark's folder, where it is not recognised: geoselect, rrsisd, risbench, refsegrs, "
    "dior-rsvg, sior, earthreason, geoseg, remotesam.",
)
@click.option(
    "--split",
    help="Split; default: val (else test) of a store, test (else val) of a benchmark; all: every one.",
)
@click.option(
    "--out",
    metavar="DIR",
    help="Writes evaluation.json, evaluation.md, per_sample.parquet and plots/ there. A killed "
    "evaluation goes on when it is started again.",
)
@click.option("--plots/--no-plots", default=True, show_default=True, help="Draw plots and contact sheets.")
@click.option(
    "--compare",
    type=click.Choice(["letterbox", "inside", "original"]),
    default="letterbox",
    show_default=True,
    help="Compare masks on the letterboxed square with its padding (as released), without the padding, or at "
    "the image's own size.",
)
@click.option(
    "--boxes/--masks",
    default=None,
    help="Compare boxes of the largest components, or masks; default: boxes for dior-rsvg.",
)
@threshold_option
@turn_option(help="Turn a benchmark's pictures as their EXIF orientation says, masks and prompts with them.")
@click.option(
    "--fit-none",
    is_flag=True,
    help="Fit on these samples when predict says that there is none, and keep that beside the weights "
    "(none.json). Needs absent targets; take held-out data.",
)
@click.option("--published", metavar="FILE", help="YAML with published results to show beside these.")
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
    layout: str | None,
    split: str | None,
    out: str | None,
    plots: bool,
    compare: Literal["letterbox", "inside", "original"],
    boxes: bool | None,
    threshold: float | None,
    turn: bool,
    fit_none: bool,
    published: str | None,
    save_predictions: bool,
    workers: int,
    gpus_per_worker: float,
    max_samples: int | None,
    seed: int,
    batch: int,
    as_json: bool,
) -> None:
    """Measure gIoU, cIoU and Pr@ of a model on a store or a benchmark, by task, category and size.

    \b
    unigeoseg evaluate --model runs/quickstart/export --data stores/quickstart --split val --out eval
    unigeoseg evaluate --model runs/quickstart/export --data downloads/RRSIS-D --split test --out eval
    unigeoseg evaluate --model runs/quickstart/export --data stores/absent --split val --fit-none
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
        layout=layout,
        compare=compare,
        boxes=boxes,
        threshold=threshold,
        published=published,
        plots=plots,
        turn=turn,
        fit_none=fit_none,
    )
    emit(result, as_json, lambda r: _text(r, out))


def _text(result: dict[str, Any], out: str | None) -> str:
    from pipelines.evaluate.tables import terminal_table

    return terminal_table(result) + (
        f"\n{out}/: evaluation.json, evaluation.md, per_sample.parquet, plots/" if out else ""
    )
