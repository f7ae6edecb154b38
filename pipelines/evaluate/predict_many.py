"""Many images, many instructions: a folder of files for each pair, and one table."""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.build.progress import Steps
from pipelines.evaluate.image_file import read_placed
from pipelines.evaluate.models import find_export
from pipelines.evaluate.predict import none_rule, parse_numbers, predict_pictures, write_prediction
from pipelines.evaluate.presence import NoneRule
from pipelines.pictures.georeference import Georeference
from pipelines.pictures.listing import list_pictures
from pipelines.pictures.remote import read_text, where_is
from pipelines.storage.filesystem import storage_errors
from unigeoseg.errors import UserError
from unigeoseg.question import Question
from unigeoseg.segmenter import Segmenter, check_shape, load

ROWS = "predictions.json"
#: Columns of a table of questions; one of the last four in each row.
COLUMNS = ("image", "text", "question", "box", "points")


@dataclass(frozen=True)
class Ask:
    """A question about an image.

    Attributes:
        image: path or URL.
        question: what to segment.
        name: of its folder among the outputs.
    """

    image: str
    question: Question
    name: str


def predict_many(
    model: str | Path | Segmenter,
    images: str,
    out: str | Path,
    question: Question | None = None,
    questions: str | None = None,
    threshold: float | None = None,
    turn: bool = True,
    batch: int = 8,
    progress: bool = True,
    none: float | bool = True,
) -> dict[str, Any]:
    """Segments many images; an image that cannot be used is told and left out.

    Args:
        model: loaded, or by reference.
        images: a file, folder, pattern, or prefix of an object store.
        out: folder; each pair gets one inside it, named by the image, with the files of a single prediction.
        question: asked of every image; or
        questions: a CSV file with columns of :data:`COLUMNS`. Without the column ``image`` every row is asked
            of every image; points are ``x,y;x,y``.
        threshold: probability in (0, 1) above which a pixel is foreground; ``None``: the model's.
        turn: whether images are turned as their EXIF orientation says.
        batch: pairs that are computed at once.
        progress: tells on stderr.
        none: whether a text may get the answer that there is none; see
            :func:`~pipelines.evaluate.predict.predict_file`.

    Returns:
        ``{"rows": [{"image", "instruction", "task", "score", "none", "files"}], "failed": [{"image",
        "instruction", "reason"}]}``, which ``predictions.json`` in ``out`` holds too.

    Raises:
        UserError: no images, no usable question, or ``out`` cannot be written.
    """
    if (question is None) == (questions is None):
        raise UserError(
            "give --questions FILE.csv, or one of --text, --question, --box and --point for all images"
        )
    source = model if isinstance(model, Segmenter) else find_export(model)
    rule = none_rule(source.source if isinstance(source, Segmenter) else source, none)
    asks = list_asks(list_pictures(images, "--images"), question, questions)
    segmenter = source if isinstance(source, Segmenter) else load(source)
    threshold = segmenter.threshold if threshold is None else threshold
    result: dict[str, Any] = {"rows": [], "failed": []}
    with Steps("predict", "mask", len(asks), enabled=progress) as steps:
        for start in range(0, len(asks), batch):
            part = asks[start : start + batch]
            _predict(segmenter, part, Path(out), threshold, turn, rule, result)
            steps.update(len(part))
    _write(Path(out) / ROWS, result)
    return result


def list_asks(images: Sequence[str], question: Question | None, table: str | None) -> list[Ask]:
    """Which question is asked of which image, and the names of the outputs.

    Args:
        images: paths or URLs.
        question: of every image.
        table: or a CSV file.

    Raises:
        UserError: the table cannot be read, a row has no or several instructions, or names no such image.
    """
    pairs = [(image, question) for image in images] if question else list(_of_table(images, str(table)))
    base = _common_folder(images)
    stems = {image: image[len(base) :].rpartition(".")[0] or image[len(base) :] for image in images}
    twice = {stem for stem, count in Counter(stems.values()).items() if count > 1}
    names = {
        i: i[len(base) :].replace("/", "__") if s in twice else s.replace("/", "__") for i, s in stems.items()
    }
    total, seen = Counter(image for image, _ in pairs), Counter[str]()
    asks = []
    for image, asked in pairs:
        seen[image] += 1
        number = f"__{seen[image]}" if total[image] > 1 else ""
        asks.append(Ask(image, asked, names[image] + number))
    return asks


def _of_table(images: Sequence[str], path: str) -> Iterator[tuple[str, Question]]:
    try:
        reader = csv.DictReader(io.StringIO(read_text(where_is(path))))
        rows = list(reader)
    except storage_errors() + (csv.Error,) as error:  # noqa: RUF005 (mypy does not follow a star)
        raise UserError(f"--questions {path} cannot be read ({error}); give a CSV file in UTF-8") from error
    columns = [name for name in reader.fieldnames or () if name]
    unknown = [name for name in columns if name not in COLUMNS]
    if unknown or not set(columns) & set(COLUMNS[1:]):
        raise UserError(
            f"--questions {path} has the columns {', '.join(columns) or 'none'}: give {', '.join(COLUMNS)} "
            "in its first line (image may be left out, and of the others those that are not used)"
        )
    if not rows:
        raise UserError(f"--questions {path} has no rows: give an instruction in each")
    for number, row in enumerate(rows, 2):
        try:
            asked = _question(row)
        except UserError as error:
            raise UserError(f"--questions {path}, line {number}: {error}") from error
        name = (row.get("image") or "").strip()
        if "image" not in columns:
            yield from ((image, asked) for image in images)
            continue
        wanted = [image for image in images if name and (image == name or image.endswith(f"/{name}"))]
        if len(wanted) != 1:
            what = "is none of" if not wanted else "is the name of several of"
            raise UserError(
                f"--questions {path}, line {number}: {name!r} {what} the {len(images)} images of --images; "
                "give its path below the folder"
            )
        yield wanted[0], asked


def _question(row: dict[str, Any]) -> Question:
    given = {name: (row.get(name) or "").strip() for name in COLUMNS[1:]}
    box, points = given["box"], given["points"]
    return Question.ask(
        given["text"] or None,
        parse_numbers(box, 4, "box") if box else None,
        [parse_numbers(point, 2, "points") for point in points.split(";")] if points else (),
        question=given["question"] or None,
    )


def _common_folder(images: Sequence[str]) -> str:
    """The longest folder that all images lie in, with its slash."""
    parts = [image.split("/")[:-1] for image in images]
    common = []
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        common.append(level[0])
    return "/".join(common) + "/" if common else ""


def _predict(
    segmenter: Segmenter,
    asks: Sequence[Ask],
    out: Path,
    threshold: float,
    turn: bool,
    rule: NoneRule | None,
    result: dict[str, Any],
) -> None:
    """One batch; an image that several pairs share is read once."""
    read: dict[str, tuple[NDArray[np.uint8], Georeference | None]] = {}
    usable, config = [], segmenter.model.config
    for ask in asks:
        try:
            if ask.image not in read:
                pixels, place = read_placed(ask.image, turn)
                check_shape(pixels, config.image_size, config.vision.patch, ask.image)
                read[ask.image] = pixels, place
        except UserError as error:
            failure = {"image": ask.image, "instruction": ask.question.text, "reason": str(error)}
            result["failed"].append(failure)
            continue
        usable.append(ask)
    if not usable:
        return
    asked = [a.question for a in usable]
    found = predict_pictures(segmenter, [read[a.image][0] for a in usable], asked, threshold, rule)
    for ask, prediction in zip(usable, found, strict=True):
        pixels, place = read[ask.image]
        told = write_prediction(pixels, place, prediction, out / ask.name, threshold, rule)
        kept = {key: told[key] for key in ("instruction", "task", "score", "none", "files")}
        result["rows"].append({"image": ask.image, **kept})


def _write(path: Path, result: dict[str, Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write to --out {path.parent}: {error}; choose another folder") from error
