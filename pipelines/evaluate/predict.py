"""One image and one instruction to a mask: PNG, overlay, JSON, and a GeoTIFF where the image has a place."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipelines.evaluate.drawing import PREDICTION, mark_prompt, overlay
from pipelines.evaluate.image_file import read_placed
from pipelines.evaluate.models import find_export
from pipelines.evaluate.presence import RULE, SCORES, NoneRule, picture_scores, read_rule
from pipelines.evaluate.records import encode_mask
from pipelines.pictures.georeference import Georeference, mask_tiff
from unigeoseg.errors import UserError
from unigeoseg.question import Question as Question
from unigeoseg.samples.letterbox import Letterbox, letterbox_image, unletterbox
from unigeoseg.segmenter import Segmentation, Segmenter, check_shape, cut, load
from unigeoseg.tasks import INTERACTIVE

MASK, OVERLAY, RESULT, PLACED = "mask.png", "overlay.png", "prediction.json", "mask.tif"


@dataclass(frozen=True)
class Prediction:
    """What a model says of an instruction.

    Attributes:
        found: the mask, empty where there is none, and its score.
        presence: the score that the rule for "none" looks at; ``None`` where there is no rule or the
            instruction is a box or points, which mean what is there.
    """

    found: Segmentation
    presence: float | None = None


def predict_pictures(
    segmenter: Segmenter,
    images: Sequence[NDArray[np.uint8]],
    questions: Sequence[Question],
    threshold: float,
    rule: NoneRule | None = None,
) -> list[Prediction]:
    """Segments RGB pictures uint8 ``[H, W, 3]``, all computed at once; an empty mask has score 0.

    Args:
        segmenter: the model.
        images: of any size.
        questions: one for each.
        threshold: probability in (0, 1) above which a pixel is foreground.
        rule: of the export; a text with a score below its limit gets an empty mask.

    Raises:
        UserError: an instruction is too long for the model.
    """
    squares = segmenter.squares(images, questions)
    return [
        answer_of(square, image.shape[0], image.shape[1], question, threshold, rule)
        for square, image, question in zip(squares, images, questions, strict=True)
    ]


def answer_of(
    square: NDArray[np.float32],
    height: int,
    width: int,
    question: Question,
    threshold: float,
    rule: NoneRule | None,
) -> Prediction:
    """What a model's logits say.

    Args:
        square: logits ``[S, S]`` of the letterboxed picture.
        height: of the picture in pixels.
        width: likewise.
        question: what was asked.
        threshold: probability in (0, 1) above which a pixel is foreground.
        rule: of the export; a text with a score below its limit gets an empty mask.
    """
    found = cut(unletterbox(square, height, width), question, threshold)
    if rule is None or question.task == INTERACTIVE:
        return Prediction(found)
    scores = picture_scores(square, height, width, threshold)
    if rule.none(scores):
        found = Segmentation(np.zeros_like(found.mask), 0.0, question)
    return Prediction(found, float(scores[SCORES.index(rule.score)]))


def predict_file(
    model: str | Path | Segmenter,
    image: str | Path,
    question: Question,
    out: str | Path,
    threshold: float | None = None,
    turn: bool = True,
    none: float | bool = True,
) -> dict[str, Any]:
    """Segments an image file and writes ``mask.png`` (0/255), ``overlay.png`` and ``prediction.json``.

    An image with a CRS also gets ``mask.tif``, a GeoTIFF of 0 and 1 that lies where the image does.

    Args:
        model: loaded, or by reference: a folder, a run folder, ``s3://``, ``models:/``, ``hf://``.
        image: an image file; see :func:`~pipelines.evaluate.image_file.read_image` for the conversions.
        question: what to segment.
        out: folder, made if needed.
        threshold: probability in (0, 1) above which a pixel is foreground; ``None``: the model's.
        turn: whether the image is turned as its EXIF orientation says; the mask lies on it as it was read.
        none: whether a text may get the answer that there is none, by the export's rule where it has one; a
            number is another limit of that rule's score.

    Returns:
        ``{"mask": COCO RLE, "score", "files"}``, whether the mask is empty (``none``), with a rule its score
        (``presence``) and limit (``none_below``), and the question, as in ``prediction.json``.

    Raises:
        UserError: model or image cannot be used, or ``out`` cannot be written.
    """
    source = model if isinstance(model, Segmenter) else find_export(model)
    rule = none_rule(source.source if isinstance(source, Segmenter) else source, none)
    pixels, place = read_placed(str(image), turn)
    segmenter = source if isinstance(source, Segmenter) else load(source)
    check_shape(pixels, segmenter.image_size, segmenter.model.config.vision.patch, image)
    threshold = segmenter.threshold if threshold is None else threshold
    (found,) = predict_pictures(segmenter, [pixels], [question], threshold, rule)
    return write_prediction(pixels, place, found, Path(out), threshold, rule)


def write_prediction(
    pixels: NDArray[np.uint8],
    place: Georeference | None,
    prediction: Prediction,
    folder: Path,
    threshold: float,
    rule: NoneRule | None = None,
) -> dict[str, Any]:
    """Writes the files of one prediction.

    Args:
        pixels: uint8 ``[H, W, 3]``.
        place: where they lie, if that is known.
        prediction: the mask.
        folder: made if needed.
        threshold: that the mask was cut at.
        rule: that decided whether there is none.

    Raises:
        UserError: ``folder`` cannot be written.
    """
    found = prediction.found
    rle, question = encode_mask(found.mask), found.question
    names = (MASK, OVERLAY, RESULT, *((PLACED,) if place else ()))
    result = {
        "mask": {"size": rle["size"], "counts": rle["prediction"]},
        "score": found.score,
        "threshold": threshold,
        "none": not bool(found.mask.any()),
        **({} if rule is None or prediction.presence is None else _presence(prediction.presence, rule)),
        "files": [str(folder / name) for name in names],
        "task": question.task,
        "instruction": question.text,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_png(folder / MASK, found.mask.astype(np.uint8) * 255)
        drawn = _draw_question(overlay(pixels, found.mask, PREDICTION), question)
        _write_png(folder / OVERLAY, drawn[..., ::-1])
        if place is not None:
            (folder / PLACED).write_bytes(mask_tiff(found.mask, place))
        (folder / RESULT).write_text(
            json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    except OSError as error:
        raise UserError(f"cannot write to --out {folder}: {error}; choose another folder") from error
    return result


def none_rule(export: str | None, none: float | bool) -> NoneRule | None:
    """The rule that decides on "none".

    Args:
        export: where the model comes from, if that is known.
        none: as in :func:`predict_file`.

    Raises:
        UserError: a limit is given, and the export has no rule whose score it could be of.
    """
    if none is False:
        return None
    rule = None if export is None else read_rule(export)
    if none is True:
        return rule
    if rule is None:
        raise UserError(
            f"--none {none:g}: {export or 'the model'} has no {RULE} and so no score to compare; fit it with "
            "`unigeoseg evaluate --fit-none` on data with absent targets, or leave --none out"
        )
    return replace(rule, threshold=float(none))


def _presence(presence: float, rule: NoneRule) -> dict[str, Any]:
    return {"presence": presence, "presence_score": rule.score, "none_below": rule.threshold}


def _write_png(path: Path, picture: NDArray[np.uint8]) -> None:
    done, data = cv2.imencode(".png", picture)
    if not done:
        raise OSError(f"{path} could not be encoded")
    path.write_bytes(data.tobytes())


def _draw_question(picture: NDArray[np.uint8], question: Question) -> NDArray[np.uint8]:
    """Marks the box or points that were asked about."""
    height, width = picture.shape[:2]
    side = max(height, width)
    square = letterbox_image(picture, side)
    fit = Letterbox.fit(height, width, side)
    return mark_prompt(square, question.box, question.points, (height, width))[fit.rows, fit.columns]


def parse_numbers(text: str, count: int, what: str) -> tuple[float, ...]:
    """``count`` comma-separated numbers of a command-line option.

    Raises:
        UserError: naming the option and what it takes.
    """
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != count:
        example = {2: "--point 0.4,0.6", 4: "--box 0.1,0.2,0.4,0.5"}[count]
        raise UserError(f"{what} {text!r}: give {count} numbers with commas, for example {example}")
    return numbers


def parse_none(text: str) -> float | bool:
    """``auto``, ``off`` or a limit in [0, 1] of the command line: true, false, or the number.

    Raises:
        UserError: it is none of these.
    """
    if text in ("auto", "off"):
        return text == "auto"
    try:
        limit = float(text)
    except ValueError:
        limit = -1.0
    if not 0 <= limit <= 1:
        raise UserError(f"--none {text!r}: give auto, off, or a limit from 0 to 1, for example --none 0.8")
    return limit
