"""One image and one instruction to a mask: PNG, overlay and JSON."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipelines.evaluate.drawing import PREDICTION, mark_prompt, overlay
from pipelines.evaluate.image_file import check_shape, read_image
from pipelines.evaluate.models import ModelSource, best_device, find_export
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
    """A mask, bool ``[H, W]`` at the image's size, and the mean foreground probability inside it."""

    mask: NDArray[np.bool_]
    score: float


def predict_image(
    model: UniGeoSeg,
    tokenizer: Tokenizer,
    image: NDArray[np.uint8],
    question: Question,
    threshold: float = 0.5,
) -> Prediction:
    """Segments one RGB image uint8 ``[H, W, 3]``; an empty mask has score 0.

    Args:
        model: in eval mode.
        tokenizer: its own.
        image: of any size.
        question: what to segment.
        threshold: probability in (0, 1) above which a pixel is foreground.

    Raises:
        UserError: the instruction is too long for the model.
    """
    sample = Sample("prediction", question.task, question.text, box=question.box, points=question.points)
    batch = Collator(tokenizer, model.config, model.config.language.max_positions)(
        [ImageGroup(image, (sample,))]
    )
    logits = model.predict(batch.to(next(model.parameters()).device))[0].float().cpu().numpy()
    full = unletterbox(logits, *image.shape[:2])
    mask = full > logit(threshold)
    score = float((1 / (1 + np.exp(-full[mask].astype(np.float64)))).mean()) if mask.any() else 0.0
    return Prediction(mask, score)


def predict_file(
    model: str | Path,
    image: str | Path,
    question: Question,
    out: str | Path,
    threshold: float = 0.5,
    turn: bool = True,
) -> dict[str, Any]:
    """Segments an image file and writes ``mask.png`` (0/255), ``overlay.png`` and ``prediction.json``.

    Args:
        model: an export folder or a run folder.
        image: an image file; see :func:`~pipelines.evaluate.image_file.read_image` for the conversions.
        question: what to segment.
        out: folder, made if needed.
        threshold: probability in (0, 1) above which a pixel is foreground.
        turn: whether the image is turned as its EXIF orientation says; the mask lies on it as it was read.

    Returns:
        ``{"mask": COCO RLE, "score", "files"}`` and the question, as in ``prediction.json``.

    Raises:
        UserError: model or image cannot be used, or ``out`` cannot be written.
    """
    source, path = find_export(model), str(image)
    pixels = read_image(path, turn)
    network, tokenizer = ModelSource(source).load(best_device())
    check_shape(pixels, network.config.image_size, network.config.vision.patch, path)
    found = predict_image(network, tokenizer, pixels, question, threshold)
    rle = encode_mask(found.mask)
    folder = Path(out)
    result = {
        "mask": {"size": rle["size"], "counts": rle["prediction"]},
        "score": found.score,
        "threshold": threshold,
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
