"""The objects of a map as layers: GeoPackage, GeoParquet, GeoJSON."""

import io
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from pipelines.maps.blend import FULL
from pipelines.maps.pieces import canonical
from pipelines.maps.scene import Scene
from pipelines.maps.work import Found, Work
from pipelines.pictures.georeference import moved
from pipelines.storage.libraries import library
from pipelines.storage.parquet import parquet_bytes
from unigeoseg.errors import UserError

LAYER = "objects"
#: File of each format.
FILES = {"gpkg": "objects.gpkg", "parquet": "objects.parquet", "geojson": "objects.geojson"}
#: GeoJSON has no index: larger layers are refused.
MOST_GEOJSON = 100_000
_DEGREES = "EPSG:4326"


class Layer:
    """Rows of a layer.

    Args:
        scene: the raster that was mapped.
        common: values that all rows share: instruction, task, date, model.
        asked: instruction and task of a prompt by its number; ``None``: all rows share them.
        simplify: tolerance of outlines in pixels; 0: along pixel edges.
    """

    def __init__(
        self,
        scene: Scene,
        common: dict[str, Any],
        asked: Callable[[int], tuple[str, str]] | None,
        simplify: float,
    ) -> None:
        self._scene, self._common, self._asked, self._simplify = scene, common, asked, simplify
        self.kind, self.date = "MultiPolygon" if asked else "Polygon", str(common["date"])

    def frame(self, some: list[Found]) -> Any:
        """A GeoDataFrame in the raster's CRS, or in pixels."""
        geopandas, shapely = library("geopandas"), library("shapely")
        outlines = canonical(shapely.from_wkb(np.asarray([found.outline for found in some], object)))
        if self._simplify > 0:
            outlines = shapely.simplify(outlines, self._simplify, preserve_topology=True)
        shapes = moved(np.asarray(outlines, object), self._scene.transform)
        if self.kind == "MultiPolygon":
            shapes = np.asarray([_multi(shape) for shape in shapes] or shapes, object)
        crs = None if self._scene.crs is None else self._scene.crs.to_wkt()
        areas = square_metres(shapes, crs)
        asked = [self._asked(found.number) if self._asked else None for found in some]
        columns: dict[str, Any] = {
            "id": np.asarray([f"{found.row}_{found.column}" for found in some], object),
            "instruction": np.asarray([a[0] if a else self._common["instruction"] for a in asked], object),
            "task": np.asarray([a[1] if a else self._common["task"] for a in asked], object),
            "score_mean": np.asarray([f.score_sum / f.area / FULL for f in some], np.float64).round(4),
            "score_max": np.asarray([found.score_max / FULL for found in some], np.float64).round(4),
            "area_m2": areas.round(3),
            "area_px": np.asarray([found.area for found in some], np.int64),
            "cut": np.asarray([found.cut for found in some], bool),
            "source": np.asarray([self._scene.path] * len(some), object),
            "date": np.asarray([self._common["date"]] * len(some), object),
            "model": np.asarray([self._common["model"]] * len(some), object),
        }
        if self._asked:
            columns["prompt"] = np.asarray([found.number for found in some], np.int64)
        return geopandas.GeoDataFrame(columns, geometry=geopandas.array.from_shapely(shapes, crs=crs))

    def frames(self, work: Work) -> Iterator[Any]:
        """All objects by their first pixels, some at a time; one empty frame where there are none."""
        empty = True
        for some in work.objects():
            empty = False
            yield self.frame(some)
        if empty:
            yield self.frame([])


def _multi(shape: Any) -> Any:
    shapely = library("shapely")
    return shapely.MultiPolygon([shape]) if shape.geom_type == "Polygon" else shape


def square_metres(shapes: Any, crs: str | None) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Areas on the ellipsoid; NaN without a CRS."""
    if crs is None or not len(shapes):
        return np.full(len(shapes), np.nan)
    pyproj, shapely = library("pyproj"), library("shapely")
    known = pyproj.CRS.from_user_input(crs)
    to_degrees = pyproj.Transformer.from_crs(known, known.geodetic_crs, always_xy=True)
    degrees = shapely.transform(shapes, to_degrees.transform, interleaved=False)
    geod = known.get_geod()
    return np.asarray(
        [abs(geod.geometry_area_perimeter(shape)[0]) for shape in shapely.orient_polygons(degrees)]
    )


def fitting(formats: tuple[str, ...], count: int) -> tuple[tuple[str, ...], list[str]]:
    """Formats that hold so many objects, and what a person should know of it.

    Objects are never lost for their format: a GeoPackage takes them where GeoJSON alone was asked for.
    """
    if "geojson" not in formats or count <= MOST_GEOJSON:
        return formats, []
    others = tuple(name for name in formats if name != "geojson") or ("gpkg",)
    files = ", ".join(FILES[name] for name in others)
    return others, [f"{count:,} objects: GeoJSON takes up to {MOST_GEOJSON:,}, they are in {files}"]


def write_layers(work: Work, layer: Layer, folder: Path, formats: tuple[str, ...]) -> dict[str, str]:
    """Writes the objects; what was written by format.

    Args:
        work: with the objects.
        layer: what their rows hold.
        folder: of the map.
        formats: of :data:`FILES`, :func:`fitting` for their number.

    Raises:
        UserError: one cannot be written.
    """
    return {name: write_frames(layer.frames(work), folder, name, layer.kind, layer.date) for name in formats}


def write_frames(frames: Iterator[Any], folder: Path, name: str, kind: str, date: str) -> str:
    """Writes parts of a layer one after another; the file's path.

    Args:
        frames: GeoDataFrames with the same columns.
        folder: that is there.
        name: of the format.
        kind: of the geometries.
        date: that the file tells, where its format has one.

    Raises:
        UserError: it cannot be written.
    """
    path, draft = folder / FILES[name], folder / f"draft-{FILES[name]}"
    draft.unlink(missing_ok=True)
    try:
        with _dated(date):
            _WRITERS[name](frames, draft, kind)
    except (OSError, RuntimeError, ValueError) as error:
        draft.unlink(missing_ok=True)
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{path} cannot be written ({' '.join(str(error).split())}): make room, and give the same "
            "command again (a map: with --resume)"
        ) from error
    draft.replace(path)
    return str(path)


def _to_file(frames: Iterator[Any], path: Path, kind: str, driver: str, **options: Any) -> None:
    pyogrio = library("pyogrio")
    for number, frame in enumerate(frames):
        pyogrio.write_dataframe(
            frame, path, layer=LAYER, driver=driver, geometry_type=kind, append=number > 0, **options
        )


def _to_gpkg(frames: Iterator[Any], path: Path, kind: str) -> None:
    _to_file(frames, path, kind, "GPKG")


def _to_geojson(frames: Iterator[Any], path: Path, kind: str) -> None:
    def degrees() -> Iterator[Any]:
        return (frame if frame.crs is None else frame.to_crs(_DEGREES) for frame in frames)

    parts = list(degrees())  # at most 100,000 objects
    pandas = library("pandas")
    whole = parts[0] if len(parts) == 1 else pandas.concat(parts, ignore_index=True)
    options = {} if whole.crs is None else {"RFC7946": "YES"}
    _to_file(iter([whole]), path, kind, "GeoJSON", **options)


def _to_parquet(frames: Iterator[Any], path: Path, kind: str) -> None:
    """A row group for each part; the bounds of the whole, which are optional, are left out."""
    writer = None
    try:
        for frame in frames:
            held = io.BytesIO()
            frame.to_parquet(held, index=False)
            table = pq.read_table(parquet_bytes(held.getvalue()))
            if writer is None:
                about = dict(table.schema.metadata)
                geo = json.loads(about[b"geo"])
                geo["columns"]["geometry"].pop("bbox", None)
                geo["columns"]["geometry"]["geometry_types"] = [kind]
                schema = table.schema.with_metadata({**about, b"geo": json.dumps(geo).encode()})
                writer = pq.ParquetWriter(path, schema)
            writer.write_table(table.cast(schema))
    finally:
        if writer is not None:
            writer.close()


_WRITERS: dict[str, Callable[[Iterator[Any], Path, str], None]] = {
    "gpkg": _to_gpkg,
    "parquet": _to_parquet,
    "geojson": _to_geojson,
}


@contextmanager
def _dated(date: str) -> Iterator[None]:
    """GDAL writes the time into a GeoPackage; the same map gives the same bytes."""
    pyogrio = library("pyogrio")
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": f"{date}T00:00:00.000Z"})
    try:
        yield
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": None})


def epoch_date() -> str | None:
    """The day that ``SOURCE_DATE_EPOCH`` names, for reproducible files."""
    import datetime

    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not text.isdigit():
        return None
    return datetime.datetime.fromtimestamp(int(text), datetime.UTC).date().isoformat()
