"""``unigeoseg predict``: images and instructions to masks."""

import sys
from typing import Any

import click

from jobs.options import device_option, emit, json_option, threshold_option, turn_option

#: Failures that are shown; ``predictions.json`` has all.
_SHOWN = 5


@click.command()
@click.option(
    "--model",
    required=True,
    metavar="EXPORT|RUN|REF",
    help="Export folder, a run with one, s3://…, models:/NAME@ALIAS or hf://ORG/NAME.",
)
@click.option("--image", metavar="FILE", help="PNG, JPEG, TIFF, …")
@click.option(
    "--images", metavar="GLOB|DIR", help="Many: a folder, a pattern in quotes, or s3://bucket/prefix."
)
@click.option("--text", help="What to segment, in words.")
@click.option("--question", help="What to segment, as a question that needs reasoning.")
@click.option("--box", metavar="x0,y0,x1,y1", help="A box in [0, 1]: x right, y down.")
@click.option("--point", "points", multiple=True, metavar="x,y", help="A point in [0, 1]; up to three times.")
@click.option(
    "--questions",
    metavar="FILE.csv",
    help="Instructions for --images: columns image, and text, question, box or points (x,y;x,y). Without the "
    "column image every one is asked of every image.",
)
@click.option(
    "--task",
    type=click.Choice(["referring", "reasoning"]),
    default="referring",
    show_default=True,
    help="What --text is: a description, or a question that needs reasoning.",
)
@threshold_option
@click.option(
    "--none",
    default="auto",
    show_default=True,
    metavar="auto|off|NUMBER",
    help="Answer a text with an empty mask where the score of the export's none.json is below its limit "
    "(auto), never (off), or below NUMBER.",
)
@turn_option
@click.option(
    "--batch", type=click.IntRange(1), default=8, show_default=True, help="Of --images: computed at once."
)
@device_option
@click.option(
    "--out",
    required=True,
    metavar="DIR",
    help="For mask.png, overlay.png, prediction.json, and mask.tif where the image has a CRS; with --images "
    "in a folder for each, beside predictions.json.",
)
@json_option
def predict(
    model: str,
    image: str | None,
    images: str | None,
    text: str | None,
    question: str | None,
    box: str | None,
    points: tuple[str, ...],
    questions: str | None,
    task: str,
    threshold: float | None,
    none: str,
    turn: bool,
    batch: int,
    device: str | None,
    out: str,
    as_json: bool,
) -> None:
    """Segment what an instruction asks for in one image, or in many.

    The score is the mean foreground probability inside the predicted mask, 0 if the mask is empty. An image
    of --images that cannot be used is told, left out, and makes the exit code 1.
    A model that was evaluated on absent targets (none.json beside its weights) may answer that there is none.

    \b
    unigeoseg predict --model runs/quickstart/export --image x.png --text "the harbour at the left" --out out
    unigeoseg predict --model runs/quickstart/export --image x.png --box 0.1,0.2,0.4,0.5 --out out
    unigeoseg predict --model runs/quickstart/export --images scenes --text "the largest lake" --out out
    unigeoseg predict --model runs/quickstart/export --images 'scenes/*.png' --questions asked.csv --out out
    """
    from pipelines.evaluate.predict import Question, parse_none, parse_numbers, predict_file
    from pipelines.evaluate.predict_many import predict_many

    if (image is None) == (images is None):
        raise click.UsageError("give --image FILE, or --images with a folder or a pattern")
    if questions is not None and image is not None:
        raise click.UsageError("--questions FILE.csv goes with --images")
    asked = None
    if questions is None or any((text, question, box, points)):
        asked = Question.ask(
            text,
            parse_numbers(box, 4, "--box") if box is not None else None,
            [parse_numbers(point, 2, "--point") for point in points],
            reasoning=task == "reasoning",
            question=question,
        )
    if images is not None:
        found = predict_many(
            _model(model, device),
            images,
            out,
            asked,
            questions,
            threshold,
            turn,
            batch,
            progress=not as_json,
            none=parse_none(none),
        )
        emit(found, as_json, _table)
        if found["failed"]:
            sys.exit(1)
        return
    assert image is not None and asked is not None
    result = predict_file(_model(model, device), image, asked, out, threshold, turn, parse_none(none))
    emit(
        result,
        as_json,
        _text,
    )


def _model(model: str, device: str | None) -> Any:
    """By reference, so that the image is looked at before weights are read; or on a named device."""
    from unigeoseg.segmenter import load

    return model if device is None else load(model, device)


def _table(result: dict[str, Any]) -> str:
    lines = [
        f"{'none ' if row['none'] else format(row['score'], '.3f')}  {row['image']}: {row['instruction']}"
        for row in result["rows"]
    ]
    failed = result["failed"]
    if failed:
        lines.append(f"{len(failed)} failed:")
        lines += [f"  {one['image']}: {one['reason']}" for one in failed[:_SHOWN]]
    return "\n".join(lines)


def _text(result: dict[str, Any]) -> str:
    found = "there is none" if result["none"] else f"score {result['score']:.3f}"
    if "presence" in result:
        found += f" (presence {result['presence']:.3f}, none below {result['none_below']:.3f})"
    return f"{found}, instruction: {result['instruction']}\n" + "\n".join(result["files"])
