"""Vector files that a map is asked with: prompts (points and boxes) and areas, laid on a raster's pixels."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from rasterio.features import rasterize
from rasterio.transform import Affine

from pipelines.maps.grid import Grid, Rect
from pipelines.maps.scene import Scene
from pipelines.pictures.georeference import on_pixels
from pipelines.pictures.vector_files import PARQUET, layers_of, points_elsewhere
from pipelines.storage.libraries import library
from pipelines.weights.local_copy import local_copy
from unigeoseg.errors import UserError
from unigeoseg.question import Question
from unigeoseg.samples.prompts import MAX_POINTS

#: A window is so many times as long as a box in it, or longer.
_ROOM = 1.5


class NotThere(UserError):
    """What was given lies elsewhere than a raster."""


@dataclass(frozen=True)
class Prompt:
    """A point, some points, or a box, and the window in which it is asked.

    Attributes:
        number: its place in its file, from 0.
        window: in pixels of the raster, inside it.
        question: with coordinates in [0, 1] of the window.
    """

    number: int
    window: Rect
    question: Question


@dataclass(frozen=True)
class Prompts:
    """The prompts that lie on a raster.

    Attributes:
        inside: them.
        outside: numbers of those that do not.
    """

    inside: list[Prompt]
    outside: list[int]

    @cached_property
    def by_number(self) -> dict[int, Prompt]:
        """Those inside by their numbers."""
        return {prompt.number: prompt for prompt in self.inside}


def read_shapes(path: str, option: str, layer: str | None = None) -> Any:
    """A GeoDataFrame of a vector file: GeoPackage, GeoJSON, GeoParquet, FlatGeobuf, shapefile.

    Args:
        path: file or URL.
        option: of the command line, for messages.
        layer: of a file with several; ``None``: the only one with geometries.

    Raises:
        UserError: it cannot be read, is empty, or has several layers.
    """
    geopandas = library("geopandas")
    local = local_copy(path)
    if not local.exists():
        raise UserError(
            f"{option} {path} does not exist; give a GeoPackage, GeoJSON, GeoParquet or shapefile"
        )
    try:
        if local.is_file() and points_elsewhere(local):
            raise UserError(
                f"{option} {path} names other files or commands instead of holding shapes: write what it "
                "gives into a GeoPackage (ogr2ogr shapes.gpkg …)"
            )
        parquet = local.suffix.lower() in PARQUET
        if parquet and layer is not None:
            raise UserError(f"{option} {path} is one table: leave the layer out")
        if parquet:
            found = geopandas.read_parquet(local)
        else:
            layer = layer or _only_layer(local, f"{option} {path}")
            found = geopandas.read_file(local, engine="pyogrio", layer=layer)
    except UserError:
        raise
    except Exception as error:  # the readers have many kinds
        reason = " ".join(str(error).split())
        raise UserError(f"{option} {path} cannot be read ({reason}); give a GeoPackage or GeoJSON") from error
    if not hasattr(found, "geometry") or found.empty:
        raise UserError(f"{option} {path} holds no shapes")
    return found


def _only_layer(local: Path, what: str) -> str | None:
    """The layer with geometries."""
    names = layers_of(local)
    if len(names) > 1:
        name = "name one with --layer" if what.startswith("--truth") else "give a file with one"
        raise UserError(f"{what} has the layers {', '.join(names)}: {name} (ogr2ogr one.gpkg FILE LAYER)")
    return names[0] if names else None


class Place(Protocol):
    """Pixels that shapes are laid on: those of a raster or of a map."""

    @property
    def path(self) -> str:
        """For messages."""
        ...

    @property
    def height(self) -> int:
        """Rows."""
        ...

    @property
    def width(self) -> int:
        """Columns."""
        ...

    @property
    def crs(self) -> Any:
        """Rasterio's; ``None``: pixel units."""
        ...

    @property
    def transform(self) -> Affine:
        """From pixels (x, y) to coordinates."""
        ...


def polygons_on(frame: Any, place: Place, what: str) -> tuple[NDArray[np.object_], NDArray[np.bool_]]:
    """Geometries in pixels, and which of them are polygons.

    Args:
        frame: a GeoDataFrame.
        place: the pixels.
        what: option and file, for messages.

    Raises:
        UserError: one of both has a CRS and the other none.
    """
    shapes = _laid(frame, place, what)
    return shapes, np.isin(library("shapely").get_type_id(shapes), (3, 6))


def _laid(frame: Any, place: Place, what: str) -> NDArray[np.object_]:
    """Geometries in pixels of a raster.

    Raises:
        UserError: one of both has a CRS and the other none.
    """
    if (frame.crs is None) != (place.crs is None):
        raise UserError(
            f"{what} has no CRS and {place.path} has one: give it one (ogr2ogr -a_srs EPSG:…)"
            if frame.crs is None
            else f"{what} has a CRS and {place.path} is taken in pixels: give shapes in pixels"
        )
    return on_pixels(frame, place.crs, place.transform)


def lay_prompts(frame: Any, scene: Scene, size: int, what: str) -> Prompts:
    """One window a prompt: around it, of the model's size, or larger where a box needs it.

    A window that would reach past the raster is moved inside; a smaller raster is a window as it is.

    Args:
        frame: a GeoDataFrame of points, multipoints (up to three) and boxes (the bounds of polygons).
        scene: the raster.
        size: side of the model's window.
        what: option and file, for messages.

    Raises:
        UserError: a shape is no prompt, or none lies on the raster.
    """
    found = Prompts([], [])
    whole = Rect(0, 0, scene.height, scene.width)
    for number, shape in enumerate(_laid(frame, scene, what)):
        corners = _corners(shape, f"{what}, shape {number}")
        low, high = corners.min(0), corners.max(0)
        box = shape.geom_type in ("Polygon", "MultiPolygon")
        edge = np.asarray([scene.width, scene.height], np.float64)
        if box:
            low, high = np.maximum(low, 0), np.minimum(high, edge)
            corners = np.stack([low, high])
        if (
            not np.isfinite(corners).all()
            or (low < 0).any()
            or (high > edge).any()
            or (box and (low >= high).any())
        ):
            found.outside.append(number)
            continue
        window = window_around(low, high, size, whole)
        inside = (corners - [window.left, window.top]) / [window.width, window.height]
        inside = np.clip(inside, 0, 1)
        question = Question.ask(box=inside.ravel().tolist()) if box else Question.ask(points=inside.tolist())
        found.inside.append(Prompt(number, window, question))
    if not found.inside:
        raise UserError(
            f"{what}: none of {len(found.outside)} shapes lies on {scene.path}; look at their CRS"
        )
    return found


def _corners(shape: Any, where: str) -> NDArray[np.float64]:
    """Points ``[N, 2]``, or the two corners of a box."""
    shapely = library("shapely")
    kind = None if shape is None or shape.is_empty else shape.geom_type
    if kind in ("Point", "MultiPoint"):
        points = np.asarray(shapely.get_coordinates(shape), np.float64)
        if len(points) > MAX_POINTS:
            raise UserError(f"{where} has {len(points)} points: a prompt has 1 to {MAX_POINTS}")
        return points
    if kind in ("Polygon", "MultiPolygon"):
        return np.asarray(shape.bounds, np.float64).reshape(2, 2)
    raise UserError(f"{where} is {kind or 'empty'}: give points, multipoints of up to {MAX_POINTS}, or boxes")


def window_around(low: NDArray[np.float64], high: NDArray[np.float64], size: int, whole: Rect) -> Rect:
    """The window in which a prompt is asked: of the model's size, or larger where a box needs it.

    Args:
        low: its least x, y in pixels.
        high: its greatest.
        size: side of the model's window.
        whole: the raster, out of which no window reaches.
    """
    side = max(size, round(float((high - low).max()) * _ROOM))
    centre = (low + high) / 2

    def span(middle: float, length: int) -> tuple[int, int]:
        start = min(max(0, round(middle - side / 2)), max(0, length - side))
        return start, min(start + side, length)

    left, right = span(float(centre[0]), whole.width)
    top, bottom = span(float(centre[1]), whole.height)
    return Rect(top, left, bottom, right)


class Area:
    """The part of a raster that is mapped.

    Args:
        frame: a GeoDataFrame of polygons.
        scene: the raster.
        what: option and file, for messages.

    Raises:
        UserError: not all of it is polygons.
        NotThere: they lie outside the raster.
    """

    def __init__(self, frame: Any, scene: Place, what: str) -> None:
        shapely = library("shapely")
        shapes, polygons = polygons_on(frame, scene, what)
        if not polygons.all():
            raise UserError(f"{what} holds other shapes than polygons: an area is polygons")
        self._union = shapely.union_all(shapely.make_valid(shapes))
        shapely.prepare(self._union)
        if not self.meets(Rect(0, 0, scene.height, scene.width)):
            raise NotThere(f"{what} lies outside {scene.path}: look at its CRS")

    def meets(self, part: Rect) -> bool:
        """Whether the area reaches into a part of the raster."""
        shapely = library("shapely")
        return bool(self._union.intersects(shapely.box(part.left, part.top, part.right, part.bottom)))

    def count(self, grid: Grid) -> int:
        """Windows that reach into it."""
        shapely = library("shapely")
        down, across = grid.shape
        left = np.arange(across) * grid.stride
        right = np.minimum(left + grid.size, grid.width)
        found = 0
        for row in range(down):
            part = grid.window(row, 0).cut(grid.whole)
            boxes = shapely.box(left, part.top, right, part.bottom)
            found += int(shapely.intersects(self._union, boxes).sum())
        return found

    def inside(self, part: Rect) -> NDArray[np.bool_]:
        """Which pixels' centres lie in it, bool ``[h, w]``."""
        return covered(np.asarray([self._union], object), part)

    @property
    def union(self) -> Any:
        """Of its polygons, in pixels."""
        return self._union


def covered(shapes: NDArray[np.object_], part: Rect) -> NDArray[np.bool_]:
    """Which pixels' centres lie in one of some polygons, bool ``[h, w]``.

    Args:
        shapes: polygons, valid, in pixels.
        part: the pixels.
    """
    shapely = library("shapely")
    edges = (part.left - 1, part.top - 1, part.right + 1, part.bottom + 1)
    cut = shapely.clip_by_rect(shapes, *edges)
    cut = cut[~shapely.is_empty(cut)]
    size = (part.height, part.width)
    if not len(cut):
        return np.zeros(size, bool)
    at = Affine.translation(part.left, part.top)
    return np.asarray(rasterize(list(cut), size, transform=at, dtype=np.uint8) > 0)
