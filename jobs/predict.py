"""``unigeoseg predict``: one image and one instruction to a mask."""

from typing import Any

import click

from jobs.options import emit, json_option, threshold_option, turn_option


@click.command()
@click.option("--model", required=True, metavar="EXPORT|RUN", help="Export folder, or a run with one.")
@click.option("--image", required=True, metavar="FILE", help="PNG, JPEG, TIFF, …")
@click.option("--text", help="What to segment, in words.")
@click.option("--box", metavar="x0,y0,x1,y1", help="A box in [0, 1]: x right, y down.")
@click.option("--point", "points", multiple=True, metavar="x,y", help="A point in [0, 1]; up to three times.")
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
@click.option("--out", required=True, metavar="DIR", help="For mask.png, overlay.png and prediction.json.")
@json_option
def predict(
    model: str,
    image: str,
    text: str | None,
    box: str | None,
    points: tuple[str, ...],
    task: str,
    threshold: float,
    none: str,
    turn: bool,
    out: str,
    as_json: bool,
) -> None:
    """Segment what an instruction asks for in one image.

    The score is the mean foreground probability inside the predicted mask, 0 if the mask is empty.
    A model that was evaluated on absent targets (none.json beside its weights) may answer that there is none.

    \b
    unigeoseg predict --model runs/quickstart/export --image x.png --text "the harbour at the left" --out out
    unigeoseg predict --model runs/quickstart/export --image x.png --box 0.1,0.2,0.4,0.5 --out out
    """
    from pipelines.evaluate.predict import Question, parse_none, parse_numbers, predict_file

    question = Question.ask(
        text,
        parse_numbers(box, 4, "--box") if box is not None else None,
        [parse_numbers(point, 2, "--point") for point in points],
        reasoning=task == "reasoning",
    )
    result = predict_file(model, image, question, out, threshold, turn, parse_none(none))
    emit(
        result,
        as_json,
        _text,
    )


def _text(result: dict[str, Any]) -> str:
    found = "there is none" if result["none"] else f"score {result['score']:.3f}"
    if "presence" in result:
        found += f" (presence {result['presence']:.3f}, none below {result['none_below']:.3f})"
    return f"{found}, instruction: {result['instruction']}\n" + "\n".join(result["files"])
