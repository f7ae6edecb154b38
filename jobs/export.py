"""``unigeoseg export``: a model in another layout."""

from typing import Any

import click

from jobs.options import emit, json_option


@click.command()
@click.option(
    "--model",
    required=True,
    metavar="DIR",
    help="An export, a run, one of its checkpoints, or a released checkpoint.",
)
@click.option(
    "--to",
    "layout",
    required=True,
    type=click.Choice(["released", "unigeoseg"]),
    help="Layout of the released code, or our export.",
)
@click.option("--out", required=True, metavar="DIR", help="Folder to write.")
@json_option
def export(model: str, layout: str, out: str, as_json: bool) -> None:
    """Write a model in the released code's layout, or a released checkpoint as our export.

    \b
    Example:
      unigeoseg export --model runs/mine/export --to released --out checkpoint
      unigeoseg export --model runs/mine/checkpoints/step-00000400 --to unigeoseg --out early
    """
    from pipelines.train.checkpoints.model_export import convert_model

    emit(convert_model(model, layout, out), as_json, _text)


def _text(result: dict[str, Any]) -> str:
    zeros = f", {result['zeros']} of them zeros that no output depends on" if result["zeros"] else ""
    return f"{result['out']}: {result['tensors']} tensors{zeros}"
