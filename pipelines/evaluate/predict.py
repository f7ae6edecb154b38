"""One image and one instruction to a mask: PNG, overlay and JSON."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipelines.evaluate.drawing import PREDICTION, mark_prompt, overlay
from pipelines.evaluate.image_file import check_shape, read_image
from pipelines.evaluate.models import ModelSource, best_device, find_export
from pipelines.evaluate.presence import RULE, SCORES, NoneRule, presence_scores, read_rule
from pipelines.evaluate.records import encode_mask
from pipelines.evaluate.thresholds import logit
from unigeoseg.errors import UserError
from unigeoseg.model import UniGeoSeg
from unigeoseg.samples.batch import ImageGroup, Sample
from unigeoseg.samples.collate import Collator
from unigeoseg.samples.letterbox import Letterbox, letterbox_image, unletterbox
from unigeoseg.samples.prompts import interactive_sentence
from unigeoseg.samples.tokens import Tokenizer
from unigeoseg.tasks import INTERACTIVE, REASONING, REFERRING

MASK, OVERLAY, RESULT = "mask.png", "overlay.png", "prediction.json"


@dataclass(frozen=True)
class Question:
    """What to segment: a text, or a box, or one to three points (coordinates in [0, 1] of the image)."""

    task: str
    text: str
    box: tuple[float, float, float, float] | None = None
    points: tuple[tuple[float, float], ...] | None = None

    @classmethod
    def ask(
        cls,
        text: str | None = None,
        box: Sequence[float] | None = None,
        points: Sequence[Sequence[float]] = (),
        reasoning: bool = False,
    ) -> "Question":
        """From what a person gives; box and points become the same sentences as in training.

        Raises:
            UserError: not exactly one kind is given, the text is empty, or the coordinates cannot be used.
        """
        if sum((text is not None, box is not None, bool(points))) != 1:
            raise UserError("give one of --text, --box and --point (--point up to three times)")
        if text is not None:
            if not text.strip():
                raise UserError("--text is empty: say what to segment")
            return cls(REASONING if reasoning else REFERRING, text)
        sentence = interactive_sentence(box, points or None)
        corners = None if box is None else (box[0], box[1], box[2], box[3])
        return cls(INTERACTIVE, sentence, corners, tuple((p[0], p[1]) for p in points) or None)


@dataclass(frozen=True)
class Prediction:
    """What a model says of an instruction.

    Attributes:
        mask: bool ``[H, W]`` at the image's size; empty where there is none.
        score: mean foreground probability inside it, 0 of an empty one.
        presence: the score that the rule for "none" looks at; ``None`` where there is no rule or the
            instruction is a box or points, which mean what is there.
    """

    mask: NDArray[np.bool_]
    score: float
    presence: float | None = None


def predict_image(
    model: UniGeoSeg,
    tokenizer: Tokenizer,
    image: NDArray[np.uint8],
    question: Question,
    threshold: float = 0.5,
    rule: NoneRule | None = None,
) -> Prediction:
    """Segments one RGB image uint8 ``[H, W, 3]``; an empty mask has score 0.

    Args:
        model: in eval mode.
        tokenizer: its own.
        image: of any size.
        question: what to segment.
        threshold: probability in (0, 1) above which a pixel is foreground.
        rule: of the export; a text with a score below its limit gets an empty mask.

    Raises:
        UserError: the instruction is too long for the model.
    """
    sample = Sample("prediction", question.task, question.text, box=question.box, points=question.points)
    batch = Collator(tokenizer, model.config, model.config.language.max_positions)(
        [ImageGroup(image, (sample,))]
    )
    logits = model.predict(batch.to(next(model.parameters()).device))[0].float().cpu().numpy()
    full = unletterbox(logits, *image.shape[:2])
    mask, presence = full > logit(threshold), None
    if rule is not None and question.task != INTERACTIVE:
        height, width = image.shape[:2]
        fit = Letterbox.fit(height, width, model.config.image_size)
        scores = presence_scores(logits[fit.rows, fit.columns], threshold)
        presence = float(scores[SCORES.index(rule.score)])
        if rule.none(scores):
            mask = np.zeros_like(mask)
    score = float((1 / (1 + np.exp(-full[mask].astype(np.float64)))).mean()) if mask.any() else 0.0
    return Prediction(mask, score, presence)


def predict_file(
    model: str | Path,
    image: str | Path,
    question: Question,
    out: str | Path,
    threshold: float = 0.5,
    turn: bool = True,
    none: float | bool = True,
) -> dict[str, Any]:
    """Segments an image file and writes ``mask.png`` (0/255), ``overlay.png`` and ``prediction.json``.

    Args:
        model: an export folder or a run folder.
        image: an image file; see :func:`~pipelines.evaluate.image_file.read_image` for the conversions.
        question: what to segment.
        out: folder, made if needed.
        threshold: probability in (0, 1) above which a pixel is foreground.
        turn: whether the image is turned as its EXIF orientation says; the mask lies on it as it was read.
        none: whether a text may get the answer that there is none, by the export's rule where it has one; a
            number is another limit of that rule's score.

    Returns:
        ``{"mask": COCO RLE, "score", "files"}``, whether the mask is empty (``none``), with a rule its score
        (``presence``) and limit (``none_below``), and the question, as in ``prediction.json``.

    Raises:
        UserError: model or image cannot be used, or ``out`` cannot be written.
    """
    source, path = find_export(model), str(image)
    rule = _rule(source, none)
    pixels = read_image(path, turn)
    network, tokenizer = ModelSource(source).load(best_device())
    check_shape(pixels, network.config.image_size, network.config.vision.patch, path)
    found = predict_image(network, tokenizer, pixels, question, threshold, rule)
    rle = encode_mask(found.mask)
    folder = Path(out)
    result = {
        "mask": {"size": rle["size"], "counts": rle["prediction"]},
        "score": found.score,
        "threshold": threshold,
        "none": not bool(found.mask.any()),
        **({} if rule is None or found.presence is None else _presence(found.presence, rule)),
        "files": [str(folder / name) for name in (MASK, OVERLAY, RESULT)],
        "task": question.task,
        "instruction": question.text,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_png(folder / MASK, found.mask.astype(np.uint8) * 255)
        drawn = _draw_question(overlay(pixels, found.mask, PREDICTION), question)
        _write_png(folder / OVERLAY, drawn[..., ::-1])
        (folder / RESULT).write_text(
            json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    except OSError as error:
        raise UserError(f"cannot write to --out {folder}: {error}; choose another folder") from error
    return result


def _rule(export: str, none: float | bool) -> NoneRule | None:
    """The rule that decides on "none".

    Raises:
        UserError: a limit is given, and the export has no rule whose score it could be of.
    """
    if none is False:
        return None
    rule = read_rule(export)
    if none is True:
        return rule
    if rule is None:
        raise UserError(
            f"--none {none:g}: {export} has no {RULE} and so no score to compare; fit it with `unigeoseg "
            "evaluate --fit-none` on data with absent targets, or leave --none out"
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
