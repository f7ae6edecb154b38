"""Labels in map coordinates: polygons of a vector file, laid on a picture.

Only what lies where the picture does is read, by the file's spatial index where it has one. A GeoJSON or
GeoParquet has none: it is read once in a process.
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.warp import transform_bounds

from pipelines.build.sources.base import UnusableImage
from pipelines.build.sources.vector_parquet import about_parquet, read_parquet
from pipelines.labels.shapes import Polygons, Shape
from pipelines.pictures.georeference import Georeference, georeference_of, on_pixels
from pipelines.pictures.picture import Picture
from pipelines.pictures.remote import Remote, Where, state_of
from pipelines.pictures.vector_files import PARQUET, layers_of, points_elsewhere, text_of
from pipelines.storage.libraries import library
from unigeoseg.errors import UserError

#: Forms without a spatial index.
_WHOLE = (".json", ".geojson", *PARQUET)
_FORMS = (".gpkg", ".fgb", ".shp", ".zip", *_WHOLE)
#: GDAL's names of what these hold.
_DRIVERS = ("GPKG", "GeoJSON", "FlatGeobuf", "ESRI Shapefile")
_LARGEST_WHOLE = 2 * 1024**3
#: Decimals of a pixel that count: what was drawn along pixel edges, as maps are, is there again after it
#: went through other coordinates.
_DECIMALS = 6
#: Points along each side of a picture when it is looked for in another coordinate system.
_ALONG = 21
#: Of the picture's side: how far around it is looked, as a straight side may be bent elsewhere.
_AROUND = 0.02


@dataclass(frozen=True)
class VectorObject:
    """An object of a vector file: its class, if a field tells it, its number there, and its parts.

    Each part is its outer ring and its holes, float64 ``[N, 2]`` x, y in pixels of the upright picture;
    ``fault`` says why there are none.
    """

    name: str | None
    number: str
    parts: tuple[tuple[NDArray[np.float64], ...], ...]
    fault: str = ""

    def shape(self, category_id: int) -> tuple[Shape | None, str]:
        """As a shape of a category, or ``None`` and why it cannot be used."""
        return (None, self.fault) if self.fault else (Polygons(category_id, self.parts), "")


def vector_objects(
    file: Where, layer: str | None, attribute: str | None, picture: Picture, where: str
) -> list[VectorObject]:
    """The objects of a vector file that reach into a picture, in the file's order.

    Vertices are brought to the picture's coordinate system; what lies between them is straight there.

    Args:
        file: the vector file.
        layer: ``None`` takes the only one that has geometries.
        attribute: field with the class; ``None``: no object has a class of its own.
        picture: opened.
        where: the picture's file, for messages.

    Raises:
        UnusableImage: ``georeference`` where the picture or the layer names no coordinate system, or the
            labels are missing or cannot be read.
        UserError: there is no such layer or field, or the file is of another form.
    """
    place = georeference_of(picture)
    if place is None:
        raise UnusableImage(
            "georeference",
            where,
            f"names no coordinate system, so nothing says where {file.name} lies on it: give the picture one "
            "(gdal_translate -a_srs EPSG:… -a_ullr …), or labels in pixels",
        )
    frame = _near(file, layer, attribute, place, (picture.height, picture.width))
    shapes = on_pixels(frame, place.crs, place.transform)
    told = attribute is not None and attribute in frame
    names = [text_of(value) for value in frame[attribute]] if told else [None] * len(frame)
    numbers = [str(number) for number in frame.index]
    found = [_object(*one) for one in zip(names, numbers, shapes, strict=True)]
    return [one for one in found if one.fault or _reaches(one, picture)]


def _near(
    file: Where, layer: str | None, attribute: str | None, place: Georeference, size: tuple[int, int]
) -> Any:
    """A GeoDataFrame of what lies around a picture, by the numbers that its objects have in the file."""
    suffix = Path(file.name).suffix.lower()
    if suffix not in _FORMS:
        raise UserError(f"{file}: vector labels are one of {', '.join(_FORMS)}")
    if suffix == ".shp" and isinstance(file, Remote):
        raise UserError(f"{file}: a shapefile is several files, of which one is fetched: zip them")
    library("geopandas")
    with _reading(file):
        state = state_of(file)
        about = _about(file, *state, layer)
    attribute = _field(file, attribute, about)
    box = _box(place, size, about["crs"])
    with _reading(file):
        if suffix not in _WHOLE:
            return _read(_source(file, *state), about["layer_name"], attribute, bbox=box).sort_index()
        frame = _whole(file, *state, about["layer_name"], attribute)
    return frame if box is None else frame[_meets(frame, box)]


@contextmanager
def _reading(file: Where) -> Iterator[None]:
    """Errors of GDAL, pyogrio and shapely, which have many kinds, as one of the picture."""
    try:
        with warnings.catch_warnings():  # GDAL misses the suffix of a file whose bytes it gets
            warnings.filterwarnings("ignore", ".*non conformant file extension", RuntimeWarning)
            yield
    except (UserError, UnusableImage):
        raise
    except FileNotFoundError as error:
        raise UnusableImage("missing_labels", str(file), "there is no such file") from error
    except Exception as error:
        detail = f"the labels cannot be read ({' '.join(str(error).split())}): repair or remove them"
        raise UnusableImage("unreadable_labels", str(file), detail) from error


@lru_cache(maxsize=8)
def _about(file: Where, size: int, mark: str, layer: str | None) -> dict[str, Any]:
    """What pyogrio tells of a layer, asked once in a process: of a GeoJSON it takes the whole file."""
    source = _source(file, size, mark)
    if _is_parquet(file):
        name = _layer(file, [Path(file.name).stem], layer)
        return _with_crs(file, {"layer_name": name, **about_parquet(source)})
    if points_elsewhere(source if isinstance(source, bytes) else Path(source)):
        raise ValueError("it names other files or commands instead of holding geometries")
    name = _layer(file, layers_of(source), layer)
    about: dict[str, Any] = library("pyogrio").read_info(source, layer=name)
    if about["driver"] not in _DRIVERS:  # in an archive, say
        raise ValueError(f"it is of the kind {about['driver']}, not {', '.join(_DRIVERS)}")
    return _with_crs(file, about)


def _with_crs(file: Where, about: dict[str, Any]) -> dict[str, Any]:
    if about["crs"] is None:
        detail = "the layer names no coordinate system: give it one (ogr2ogr -a_srs EPSG:…)"
        raise UnusableImage("georeference", str(file), detail)
    return about


def _is_parquet(file: Where) -> bool:
    return Path(file.name).suffix.lower() in PARQUET


def _field(file: Where, attribute: str | None, about: Mapping[str, Any]) -> str | None:
    """The field to read; none of a GeoJSON without objects, which knows no fields either."""
    fields = list(about["fields"])
    if attribute is None or attribute in fields:
        return attribute
    if not fields and not about["features"]:
        return None
    known = ", ".join(fields) or "none (of a shapefile, the .dbf beside it has them)"
    raise UserError(f"{file}: there is no field {attribute!r}; its fields are {known}: set attribute")


def _source(file: Where, size: int, mark: str) -> Any:
    """What pyogrio opens: a path, or the bytes of a file that lies elsewhere."""
    return _bytes(file, size, mark) if isinstance(file, Remote) else str(file)


@lru_cache(maxsize=2)
def _bytes(file: Remote, size: int, mark: str) -> bytes:
    """A remote file, fetched once in a process; another one under the same name is fetched anew."""
    if size > _LARGEST_WHOLE:
        raise ValueError(f"more than {_LARGEST_WHOLE >> 30} GiB to fetch whole: copy the file to a disk")
    return file.read()


@lru_cache(maxsize=2)
def _whole(file: Where, size: int, mark: str, layer: str, attribute: str | None) -> Any:
    """All of a file that has no spatial index."""
    if size > _LARGEST_WHOLE:
        raise ValueError(
            f"more than {_LARGEST_WHOLE >> 30} GiB without a spatial index: make it a GeoPackage"
        )
    source = _source(file, size, mark)
    return read_parquet(source, attribute) if _is_parquet(file) else _read(source, layer, attribute)


def _read(source: Any, layer: str, attribute: str | None, **more: Any) -> Any:
    """Geometries and one field; a geometry that is none is ``None``: that object's fault alone."""
    return library("pyogrio").read_dataframe(
        source,
        layer=layer,
        columns=[] if attribute is None else [attribute],
        fid_as_index=True,
        on_invalid="ignore",
        **more,
    )


def _layer(file: Where, names: list[str], layer: str | None) -> str:
    """The name of the layer to read, of those in the file."""
    if layer in names:
        return str(layer)
    if layer is None and len(names) == 1:
        return names[0]
    has = f"its layers are {', '.join(names)}" if names else "no layer of it has geometries"
    what = "more than one layer" if layer is None and names else f"no layer {layer or 'with labels'!r}"
    raise UserError(f"{file}: {what}; {has}: set layer in the layout")


def _box(place: Georeference, size: tuple[int, int], crs: str) -> tuple[float, float, float, float] | None:
    """Bounds of a picture, and a little more, in a layer's coordinates; ``None`` where they have no end."""
    corners = [place.transform @ (x, y) for x in (0, size[1]) for y in (0, size[0])]
    (west, south), (east, north) = np.min(corners, 0), np.max(corners, 0)
    more = _AROUND * max(east - west, north - south)
    bounds = (west - more, south - more, east + more, north + more)
    try:
        found = transform_bounds(place.crs, CRS.from_user_input(crs), *bounds, densify_pts=_ALONG)
    except RasterioError:
        return None
    return found if np.isfinite(found).all() and found[0] <= found[2] and found[1] <= found[3] else None


def _meets(frame: Any, box: tuple[float, float, float, float]) -> NDArray[np.bool_]:
    """Which objects meet a rectangle; those without a readable place may lie anywhere."""
    found = np.array(frame.geometry.isna() | frame.geometry.is_empty)
    found[frame.sindex.query(library("shapely").box(*box))] = True
    return found


def _object(name: str | None, number: str, shape: Any) -> VectorObject:
    shapely = library("shapely")
    if shape is None or shape.is_empty:
        return VectorObject(name, number, (), "degenerate")
    pieces = _polygons(shape)
    if not pieces:
        return VectorObject(name, number, (), "no_area")
    if not np.isfinite(shapely.get_coordinates(pieces)).all():
        return VectorObject(name, number, (), "coordinates")
    return VectorObject(name, number, tuple(_rings(piece) for piece in pieces))


def _polygons(shape: Any) -> list[Any]:
    """The polygons of a geometry, also of a collection in a collection."""
    if shape.geom_type == "Polygon":
        return [] if shape.is_empty else [shape]
    return [one for part in getattr(shape, "geoms", ()) for one in _polygons(part)]


def _rings(piece: Any) -> tuple[NDArray[np.float64], ...]:
    """Outer ring and holes, the first corner not repeated."""
    rings = (np.asarray(ring.coords, np.float64) for ring in (piece.exterior, *piece.interiors))
    return tuple(np.round(ring[:-1, :2], _DECIMALS) for ring in rings)


def _reaches(one: VectorObject, picture: Picture) -> bool:
    """Whether the rectangle around an object meets the picture: what lies beside it is no fault."""
    corners = np.concatenate([part[0] for part in one.parts])
    (x0, y0), (x1, y1) = corners.min(0), corners.max(0)
    return bool(x1 > 0 and y1 > 0 and x0 < picture.width and y0 < picture.height)
