"""Label files with boxes: DOTA text, Pascal VOC XML, FAIR1M XML, and CSV with polygons."""

import ast
import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import defusedxml
import defusedxml.ElementTree
import numpy as np
from numpy.typing import NDArray

from pipelines.build.sources.base import UnusableImage

_LARGEST_FILE = 256 * 1024 * 1024


@dataclass(frozen=True)
class Annotation:
    """An object: the source's class name and its outline, float64 ``[N, 2]`` x, y in pixels.

    A pixel covers [x, x + 1) x [y, y + 1).
    """

    name: str
    outline: NDArray[np.float64]


def read_annotations(file: Path, form: str, image: str) -> list[Annotation]:
    """The objects of one image.

    Args:
        file: the label file, of this image or of all.
        form: dota, voc, fair1m or csv.
        image: file name of the image, looked up in a file of all images.

    Raises:
        UnusableImage: the file is missing or malformed, or its XML declares entities.
    """
    try:
        if file.stat().st_size > _LARGEST_FILE:
            raise UnusableImage("huge_labels", str(file), f"more than {_LARGEST_FILE >> 20} MB of labels")
        text = file.read_text(encoding="utf-8-sig")
        return list(_FORMS[form](text, image))
    except UnusableImage:
        raise
    except FileNotFoundError as error:
        raise UnusableImage("missing_labels", str(file), f"there are no labels for {image}") from error
    except defusedxml.DefusedXmlException as error:
        detail = f"refused: it declares XML entities or a document type ({type(error).__name__})"
        raise UnusableImage("hostile_labels", str(file), detail) from error
    except (
        OSError,
        UnicodeDecodeError,
        ValueError,
        SyntaxError,
        KeyError,
        csv.Error,
        RecursionError,  # brackets within brackets, thousands deep
        MemoryError,
    ) as error:
        detail = f"the labels cannot be read ({' '.join(str(error).split())}): repair or remove them"
        raise UnusableImage("unreadable_labels", str(file), detail) from error


def _dota(text: str, image: str) -> Iterator[Annotation]:
    """``x1 y1 x2 y2 x3 y3 x4 y4 category difficult`` after lines such as ``imagesource:GoogleEarth``."""
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or (len(words) == 1 and ":" in words[0]):
            continue
        if len(words) < 9:
            raise ValueError(f"line {number} has {len(words)} columns, 8 coordinates and a class are needed")
        yield Annotation(words[8], np.asarray(words[:8], np.float64).reshape(4, 2))


def _voc(text: str, image: str) -> Iterator[Annotation]:
    """Pascal VOC: ``xmin``… are pixels counted from 1, both ends included."""
    for thing in _xml(text).iter("object"):
        x0, y0, x1, y1 = (float(_text(thing, f"bndbox/{name}")) for name in ("xmin", "ymin", "xmax", "ymax"))
        corners = [(x0 - 1, y0 - 1), (x1, y0 - 1), (x1, y1), (x0 - 1, y1)]
        yield Annotation(_text(thing, "name"), np.asarray(corners))


def _fair1m(text: str, image: str) -> Iterator[Annotation]:
    """FAIR1M: ``possibleresult/name`` and five ``points/point`` of ``x,y``, the first repeated at the end."""
    for thing in _xml(text).iter("object"):
        points = [str(p.text).split(",") for p in thing.findall("points/point")]
        outline = np.asarray(points, np.float64)
        if outline.ndim != 2 or outline.shape[1] != 2:
            raise ValueError("an object without x,y points")
        closed = len(outline) > 3 and (outline[0] == outline[-1]).all()
        yield Annotation(_text(thing, "possibleresult/name"), outline[:-1] if closed else outline)


def _csv(text: str, image: str) -> Iterator[Annotation]:
    """Columns ``image_id``, ``geometry`` (a list of (x, y) pairs) and ``class``; one file for all images."""
    rows = csv.DictReader(io.StringIO(text))
    missing = {"image_id", "geometry", "class"} - set(rows.fieldnames or ())
    if missing:
        raise ValueError(f"no column {sorted(missing)[0]}")
    for row in rows:
        if row["image_id"] == image:
            outline = np.asarray(ast.literal_eval(row["geometry"]), np.float64)
            if outline.ndim != 2 or outline.shape[1] != 2:
                raise ValueError(f"geometry {row['geometry'][:40]!r} is no list of (x, y)")
            closed = len(outline) > 3 and (outline[0] == outline[-1]).all()
            yield Annotation(row["class"], outline[:-1] if closed else outline)


_FORMS: dict[str, Callable[[str, str], Iterator[Annotation]]] = {
    "dota": _dota,
    "voc": _voc,
    "fair1m": _fair1m,
    "csv": _csv,
}


def _xml(text: str) -> Any:
    return defusedxml.ElementTree.fromstring(text, forbid_dtd=True)


def _text(element: Any, path: str) -> str:
    found = element.findtext(path)
    if found is None or not found.strip():
        raise ValueError(f"an object without {path}")
    return str(found).strip()
