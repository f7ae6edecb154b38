"""``unigeoseg data stats``, ``preview`` and ``report``: what a store holds, in figures and pictures."""

import os
from typing import Any

import click

from jobs.options import emit, json_option
from unigeoseg.errors import UserError
from unigeoseg.tasks import TASKS

_images = click.option(
    "--images",
    type=click.IntRange(0),
    default=2000,
    show_default=True,
    help="Images that are opened for the map of mask centres; the rest comes from the index.",
)
_count = click.option(
    "--n", type=click.IntRange(1, 400), default=12, show_default=True, help="Samples on a sheet."
)
_seed = click.option("--seed", type=int, default=0, show_default=True, help="Another seed, other samples.")


@click.command()
@click.argument("store")
@click.option("--out", help="A folder, or s3:// prefix, for the histograms as PNG.")
@_images
@json_option
def stats(store: str, out: str | None, images: int, as_json: bool) -> None:
    """Count a store's samples and draw histograms: categories, words, mask sizes and places, resolution.

    \b
    Examples:
      unigeoseg data stats stores/synthetic
      unigeoseg data stats s3://bucket/store --out stats --json
    """
    from pipelines.curate.statistics import statistics

    found = statistics(store, images)
    files = []
    if out is not None:
        from pipelines.build.preview import write_file
        from pipelines.curate.pictures import draw_statistics

        for name, data in draw_statistics(found).items():
            files.append(f"{out.rstrip('/')}/{name}.png")
            write_file(files[-1], data)
    emit(found | {"files": files}, as_json, _stats_text)


@click.command()
@click.argument("store")
@click.option("--out", required=True, help="A PNG for one sheet, or a folder for one a task and a source.")
@click.option("--task", type=click.Choice(TASKS), help="Only samples of this task.")
@click.option("--source", help="Only samples of this source.")
@_count
@_seed
@json_option
def preview(
    store: str, out: str, task: str | None, source: str | None, n: int, seed: int, as_json: bool
) -> None:
    """Draw samples of a store: image, outline of the mask, prompt, and the text under it.

    \b
    Examples:
      unigeoseg data preview stores/synthetic --task referring --out referring.png
      unigeoseg data preview stores/synthetic --n 24 --out sheets
    """
    from pipelines.build.preview import Choice
    from pipelines.build.preview import preview as write_preview

    if not out.lower().endswith(".png") and "." in os.path.basename(out.rstrip("/")):  # noqa: PTH119 (also s3://)
        raise UserError(f"--out {out}: a sheet is a PNG; give a name that ends in .png, or a folder")
    files = write_preview(store, out, Choice(task, source, n, seed))
    emit({"file": files[0], "files": files}, as_json, lambda result: "\n".join(result["files"]))


@click.command()
@click.argument("store")
@click.option("--out", default="report.html", show_default=True, help="The HTML file; it needs no other.")
@_count
@_seed
@_images
@json_option
def report(store: str, out: str, n: int, seed: int, images: int, as_json: bool) -> None:
    """Write one HTML page about a store: statistics beside the paper's, stages, licences, contact sheets.

    \b
    Example:
      unigeoseg data report stores/synthetic --out synthetic.html
    """
    from pipelines.curate.report import write_report

    if not out.lower().endswith((".html", ".htm")):
        raise UserError(f"--out {out}: the report is a page; give a name that ends in .html")
    emit(write_report(store, out, n, seed, images), as_json, lambda result: str(result["report"]))


def _stats_text(found: dict[str, Any]) -> str:
    from pipelines.curate.table10 import table10_text

    lines = [table10_text(found["table10"])]
    for name, title in (
        ("source", "source"),
        ("split", "split"),
        ("subtask", "kind"),
        ("category", "category"),
    ):
        rows = found["counts"][name]
        tasks = list(found["words"])
        lines += ["", f"{title:<32}" + "".join(f"{task:>13}" for task in tasks)]
        for value, counts in list(rows.items())[:30]:
            lines.append(f"{value[:31]:<32}" + "".join(f"{counts[task]:>13,}" for task in tasks))
        if len(rows) > 30:
            lines.append(f"... and {len(rows) - 30} more (--json lists all)")
    return "\n".join([*lines, *(["", *found["files"]] if found["files"] else [])])
