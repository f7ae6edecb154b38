"""An answer as files: PNG, run lengths, GeoTIFF, GeoPackage."""

import datetime
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rasterio.transform import Affine

from pipelines.evaluate.records import encode_mask
from pipelines.maps.grid import Rect
from pipelines.maps.vectors import epoch_date, square_metres, write_frames
from pipelines.pictures.georeference import Georeference, mask_tiff, moved
from pipelines.storage.libraries import library
from unigeoseg.errors import UserError
from unigeoseg.outlines import mask_polygons
from unigeoseg.question import Question

#: Kinds of files, and what they are for a browser.
KINDS = {
    "mask.png": "image/png",
    "mask.json": "application/json",
    "mask.tif": "image/tiff",
    "objects.gpkg": "application/geopackage+sqlite3",
}


@dataclass(frozen=True)
class Answer:
    """A mask of a window of a picture.

    Attributes:
        image: id of the picture.
        name: of the picture.
        question: with coordinates in [0, 1] of the window.
        window: part of the picture that was looked at, in its pixels.
        level: whose pixels the mask has: 2^level of the picture's.
        mask: bool ``[h, w]``.
        score: mean probability inside it.
        presence: score for whether it is there at all, where there is a rule.
        threshold: of the mask.
        place: of the picture.
    """

    image: str
    name: str
    question: Question
    window: Rect
    level: int
    mask: NDArray[np.bool_]
    score: float
    presence: float | None
    threshold: float
    place: Georeference | None

    def to_picture(self) -> Affine:
        """From pixels of the mask to pixels of the picture."""
        height, width = self.mask.shape
        scale = Affine.scale(self.window.width / width, self.window.height / height)
        return Affine.translation(self.window.left, self.window.top) @ scale

    def on_earth(self) -> Georeference | None:
        """Where the mask lies."""
        if self.place is None:
            return None
        return Georeference(self.place.crs, self.place.transform @ self.to_picture())

    def rle(self) -> dict[str, Any]:
        """The mask as COCO's compressed run lengths."""
        found = encode_mask(self.mask)
        return {"size": found["size"], "counts": found["prediction"]}

    def describe(self) -> dict[str, Any]:
        """What there is to say of it, mask included."""
        window = self.window
        return {
            "image": self.image,
            "mask": self.rle(),
            "window": [window.left, window.top, window.right, window.bottom],
            "score": self.score,
            "none": not bool(self.mask.any()),
            "presence": self.presence,
            "share": float(self.mask.mean()),
            "area_px": int(self.mask.sum()) << (2 * self.level),
            "area_m2": self.square_metres(),
            "task": self.question.task,
            "instruction": self.question.text,
            "threshold": self.threshold,
        }

    def square_metres(self) -> float | None:
        """Area along the ellipsoid; ``None`` without a place, or without the libraries that know."""
        if self.place is None:
            return None
        try:
            shapes = self._shapes()
            return float(square_metres(shapes, self.place.crs.to_wkt()).sum())
        except UserError:
            return None

    def _shapes(self) -> NDArray[np.object_]:
        """Outlines in coordinates, or in pixels of the picture."""
        shapely = library("shapely")
        place = self.on_earth()
        at = self.to_picture() if place is None else place.transform
        shapes = np.asarray([shapely.geometry.shape(one) for one in mask_polygons(self.mask)], object)
        return moved(shapes, at)


def as_file(answer: Answer, kind: str, model: str, details: bytes) -> bytes:
    """An answer as one of :data:`KINDS`.

    Args:
        answer: it.
        kind: name of the file.
        model: that gave it.
        details: JSON of what was answered.

    Raises:
        UserError: the picture has no place, or a library is missing.
    """
    if kind == "mask.json":
        return details
    if kind == "mask.png":
        return png(answer.mask.astype(np.uint8) * 255)
    if kind == "mask.tif":
        place = answer.on_earth()
        if place is None:
            raise UserError(f"{answer.name} does not say where it lies: take mask.png")
        return mask_tiff(answer.mask, place)
    return _geopackage(answer, model)


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Grey ``[h, w]`` or RGB ``[h, w, 3]`` as PNG."""
    done, data = cv2.imencode(".png", pixels[..., ::-1] if pixels.ndim == 3 else pixels)
    assert done
    return bytes(data.tobytes())


def jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """RGB ``[h, w, 3]`` as JPEG."""
    done, data = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
    assert done
    return bytes(data.tobytes())


def _geopackage(answer: Answer, model: str) -> bytes:
    geopandas = library("geopandas")
    shapes = answer._shapes()
    crs = answer.place.crs.to_wkt() if answer.place else None
    count = len(shapes)
    columns = {
        "id": np.arange(count, dtype=np.int64),
        "instruction": np.asarray([answer.question.text] * count, object),
        "task": np.asarray([answer.question.task] * count, object),
        "score": np.full(count, answer.score),
        "area_m2": square_metres(shapes, crs).round(3),
        "source": np.asarray([answer.name] * count, object),
        "model": np.asarray([model] * count, object),
    }
    geometry = geopandas.array.from_shapely(shapes, crs=crs)
    frame = geopandas.GeoDataFrame(columns, geometry=geometry)
    date = epoch_date() or datetime.datetime.now(datetime.UTC).date().isoformat()
    with tempfile.TemporaryDirectory(prefix="unigeoseg-answer-") as folder:
        return Path(write_frames(iter([frame]), Path(folder), "gpkg", "Polygon", date)).read_bytes()
