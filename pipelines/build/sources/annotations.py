"""Label files with boxes: DOTA text, Pascal VOC XML, FAIR1M XML, LabelMe JSON, and CSV with polygons."""

import ast
import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import defusedxml
import defusedxml.ElementTree
import numpy as np
from numpy.typing import NDArray

from pipelines.build.sources.base import UnusableImage
from pipelines.pictures.remote import Where, read_text, state_of
from pipelines.pictures.spelling import folded

_LARGEST_FILE = 256 * 1024 * 1024


Outline = NDArray[np.float64]
Size = tuple[int, int]


@dataclass(frozen=True)
class Annotation:
    """An object: the source's class name and its outline, float64 ``[N, 2]`` x, y in pixels.

    A pixel covers [x, x + 1) x [y, y + 1). An object that cannot be read has a ``fault``, a short reason.
    """

    name: str
    outline: Outline
    fault: str | None = None


class Annotations(list[Annotation]):
    """The objects of an image; ``size`` is the height and width on which they were drawn, if it is told."""

    size: Size | None = None


def read_annotations(file: Where, form: str, image: str) -> Annotations:
    """The objects of one image.

    Args:
        file: the label file, of this image or of all.
        form: dota, voc, fair1m, labelme or csv.
        image: file name of the image, looked up in a file of all images.

    Raises:
        UnusableImage: the file is missing or malformed, or its XML declares entities.
    """
    try:
        size, mark = state_of(file)
        if size > _LARGEST_FILE:
            raise UnusableImage("huge_labels", str(file), f"more than {_LARGEST_FILE >> 20} MB of labels")
        if form == "csv":
            return _csv(_csv_rows(file, size, mark), image)
        return _FORMS[form](read_text(file), image)
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
        LookupError,
        csv.Error,
        RecursionError,  # brackets within brackets, thousands deep
        MemoryError,
    ) as error:
        detail = f"the labels cannot be read ({' '.join(str(error).split())}): repair or remove them"
        raise UnusableImage("unreadable_labels", str(file), detail) from error


def _object(name: str, outline: Callable[[Any], Any], given: Any) -> Annotation:
    """An object whose outline is read here: what is no list of x, y is its own fault alone."""
    try:
        corners = np.asarray(outline(given), np.float64)
    except (ValueError, SyntaxError, TypeError, LookupError, RecursionError, MemoryError):
        corners = np.zeros(0)
    if corners.ndim != 2 or corners.shape[1] != 2 or not np.isfinite(corners).all():
        return Annotation(name, np.zeros((0, 2)), "coordinates")
    closed = len(corners) > 3 and (corners[0] == corners[-1]).all()
    return Annotation(name, corners[:-1] if closed else corners)


def _corners(x0: float, y0: float, x1: float, y1: float) -> list[tuple[float, float]]:
    """A box, its ends in any order, as corners."""
    (left, right), (top, bottom) = sorted((x0, x1)), sorted((y0, y1))
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def _dota(text: str, image: str) -> Annotations:
    """``x1 y1 x2 y2 x3 y3 x4 y4 category difficult`` after lines such as ``imagesource:GoogleEarth``."""
    found = Annotations()
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or (len(words) == 1 and ":" in words[0]):
            continue
        if len(words) < 9:
            raise ValueError(f"line {number} has {len(words)} columns, 8 coordinates and a class are needed")
        found.append(_object(words[8], lambda n: np.asarray(n, np.float64).reshape(4, 2), words[:8]))
    return found


def _voc(text: str, image: str) -> Annotations:
    """Pascal VOC: ``xmin``… are pixels counted from 1, both ends included."""
    root, found = _xml(text), Annotations()
    found.size = _size(root)
    for thing in root.iter("object"):
        found.append(_object(_text(thing, "name"), _bndbox, thing))
    return found


def _bndbox(thing: Any) -> list[tuple[float, float]]:
    x0, y0, x1, y1 = (float(_text(thing, f"bndbox/{name}")) for name in ("xmin", "ymin", "xmax", "ymax"))
    (x0, x1), (y0, y1) = sorted((x0, x1)), sorted((y0, y1))
    return _corners(x0 - 1, y0 - 1, x1, y1)


def _fair1m(text: str, image: str) -> Annotations:
    """FAIR1M: ``possibleresult/name`` and five ``points/point`` of ``x,y``, the first repeated at the end."""
    root, found = _xml(text), Annotations()
    found.size = _size(root)
    for thing in root.iter("object"):
        points = [str(p.text).split(",") for p in thing.findall("points/point")]
        name = _text(thing, "possibleresult/name")
        found.append(_object(name, lambda p: np.asarray(p, np.float64), points))
    return found


def _labelme(text: str, image: str) -> Annotations:
    """LabelMe: ``shapes`` with ``label``, ``points`` and ``shape_type`` polygon or rectangle."""
    content, found = json.loads(text), Annotations()
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        raise ValueError("no list of shapes")
    found.size = _pair(content.get("imageHeight"), content.get("imageWidth"))
    for shape in content["shapes"]:
        name, kind, points = str(shape["label"]), shape.get("shape_type") or "polygon", shape.get("points")
        if kind == "rectangle":
            found.append(_object(name, lambda p: _corners(*p[0], *p[1]), points))
        elif kind == "polygon":
            found.append(_object(name, lambda p: p, points))
        else:
            found.append(Annotation(name, np.zeros((0, 2)), "shape_type"))
    return found


#: Image id, class and geometry of each object, by the file name of its image, its suffix in small letters.
_Rows = dict[str, list[tuple[str, str, str]]]


@lru_cache(maxsize=2)
def _csv_rows(file: Where, size: int, mark: str) -> _Rows:
    """All rows of a file of all images, read once in a process for all of them.

    Args:
        file: columns ``image_id``, ``geometry`` (a list of (x, y) pairs) and ``class``.
        size: of the file in bytes; another file under the same name is read anew.
        mark: what else tells it from others, likewise.
    """
    found: _Rows = {}
    rows = csv.DictReader(io.StringIO(read_text(file)))
    missing = {"image_id", "geometry", "class"} - set(rows.fieldnames or ())
    if missing:
        raise ValueError(f"no column {sorted(missing)[0]}")
    for row in rows:
        name = row["image_id"] or ""
        found.setdefault(folded(name), []).append((name, row["class"], row["geometry"]))
    return found


def _csv(rows: _Rows, image: str) -> Annotations:
    close = rows.get(folded(image), [])
    exact = [row for row in close if row[0] == image]
    return Annotations(_object(name, ast.literal_eval, given) for _, name, given in exact or close)


_FORMS: dict[str, Callable[[str, str], Annotations]] = {
    "dota": _dota,
    "voc": _voc,
    "fair1m": _fair1m,
    "labelme": _labelme,
}


def _size(root: Any) -> Size | None:
    """Height and width of the picture as an XML tells them."""
    return _pair(root.findtext("size/height"), root.findtext("size/width"))


def _pair(height: Any, width: Any) -> Size | None:
    try:
        size = int(float(height)), int(float(width))
    except (TypeError, ValueError, OverflowError):
        return None
    return size if min(size) > 0 else None  # labelImg writes 0 where it could not read the picture


def _xml(text: str) -> Any:
    return defusedxml.ElementTree.fromstring(text, forbid_dtd=True)


def _text(element: Any, path: str) -> str:
    found = element.findtext(path)
    if found is None or not found.strip():
        raise ValueError(f"an object without {path}")
    return str(found).strip()
