"""One image and one instruction to a mask: PNG, overlay, JSON, and a GeoTIFF where the image has a place."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipelines.evaluate.drawing import PREDICTION, mark_prompt, overlay
from pipelines.evaluate.image_file import read_placed
from pipelines.evaluate.models import find_export
from pipelines.evaluate.records import encode_mask
from pipelines.pictures.georeference import Georeference, mask_tiff
from unigeoseg.errors import UserError
from unigeoseg.question import Question as Question
from unigeoseg.samples.letterbox import Letterbox, letterbox_image
from unigeoseg.segmenter import Segmentation, Segmenter, check_shape, cut, load

MASK, OVERLAY, RESULT, PLACED = "mask.png", "overlay.png", "prediction.json", "mask.tif"


def predict_file(
    model: str | Path | Segmenter,
    image: str | Path,
    question: Question,
    out: str | Path,
    threshold: float = 0.5,
    turn: bool = True,
) -> dict[str, Any]:
    """Segments an image file and writes ``mask.png`` (0/255), ``overlay.png`` and ``prediction.json``.

    An image with a CRS also gets ``mask.tif``, a GeoTIFF of 0 and 1 that lies where the image does.

    Args:
        model: loaded, or by reference: a folder, a run folder, ``s3://``, ``models:/``, ``hf://``.
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
    source = model if isinstance(model, Segmenter) else find_export(model)
    pixels, place = read_placed(str(image), turn)
    segmenter = source if isinstance(source, Segmenter) else load(source)
    check_shape(pixels, segmenter.image_size, segmenter.model.config.vision.patch, image)
    (logits,) = segmenter.logits([pixels], [question])
    return write_prediction(pixels, place, cut(logits, question, threshold), Path(out), threshold)


def write_prediction(
    pixels: NDArray[np.uint8],
    place: Georeference | None,
    found: Segmentation,
    folder: Path,
    threshold: float,
) -> dict[str, Any]:
    """Writes the files of one prediction.

    Args:
        pixels: uint8 ``[H, W, 3]``.
        place: where they lie, if that is known.
        found: the mask.
        folder: made if needed.
        threshold: that the mask was cut at.

    Raises:
        UserError: ``folder`` cannot be written.
    """
    rle, question = encode_mask(found.mask), found.question
    names = (MASK, OVERLAY, RESULT, *((PLACED,) if place else ()))
    result = {
        "mask": {"size": rle["size"], "counts": rle["prediction"]},
        "score": found.score,
        "threshold": threshold,
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
