"""What is known to be there: polygons or a raster, laid on the pixels of a map."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import rasterio
import rasterio.windows
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT

from pipelines.maps.grid import Rect
from pipelines.maps.shapes import covered, polygons_on, read_shapes
from pipelines.pictures.vector_files import text_of
from pipelines.storage.libraries import library
from pipelines.weights.local_copy import local_copy
from unigeoseg.errors import UserError

#: Files that are taken for rasters, and the driver of GDAL's that reads them: none that follows other files.
_RASTERS = {".tif": "GTiff", ".tiff": "GTiff", ".png": "PNG", ".jp2": "JP2OpenJPEG", ".img": "HFA"}
#: Of a pixel: by how much places may be off in a raster that is laid on another grid; GDAL takes no zero.
_EXACT = 1e-6


@dataclass(frozen=True)
class Ground:
    """The pixels of a map.

    Attributes:
        path: of the map, for messages.
        height: rows.
        width: columns.
        crs: rasterio's; ``None``: pixel units.
        transform: from pixels (x, y) to coordinates.
    """

    path: str
    height: int
    width: int
    crs: Any
    transform: Affine


@dataclass(frozen=True)
class Chosen:
    """What of a file is the truth.

    Attributes:
        path: file or URL.
        layer: of a vector file with several.
        where: field and the values of it that count; ``None``: all shapes.
        values: of a raster, those that count; empty: all but 0.
    """

    path: str
    layer: str | None = None
    where: tuple[str, Sequence[str]] | None = None
    values: Sequence[float] = ()


class Truth(Protocol):
    """The truth on the pixels of a map."""

    def read(self, part: Rect) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Where it is there, and where that is known: bool ``[h, w]`` each."""
        ...


class TruthFile(Protocol):
    """A file of truth."""

    #: Shapes that are no polygons.
    ignored: int
    #: Whether it reached into a map that it was laid on; of a raster that is seen by its pixels.
    reached: bool

    def on(self, ground: Ground, stack: ExitStack) -> Truth:
        """Lays it on a map.

        Args:
            ground: the map's pixels.
            stack: closes what is opened.

        Raises:
            UserError: that cannot be done.
        """
        ...


def open_truth(chosen: Chosen) -> TruthFile:
    """Opens a file of truth.

    Args:
        chosen: file, and what of it counts.

    Raises:
        UserError: it cannot be read, or holds nothing that counts.
    """
    if Path(chosen.path).suffix.lower() in _RASTERS:
        if chosen.where is not None or chosen.layer is not None:
            raise UserError(f"--truth {chosen.path} is a raster: --where and --layer are for shapes")
        return _RasterFile(chosen)
    if chosen.values:
        raise UserError(f"--truth {chosen.path} holds shapes: --values is for a raster")
    return _PolygonFile(chosen)


class _PolygonFile:
    """A vector file, read once, reprojected once for all maps of a CRS."""

    def __init__(self, chosen: Chosen) -> None:
        self._what = f"--truth {chosen.path}"
        frame = read_shapes(chosen.path, "--truth", chosen.layer).reset_index(drop=True)
        counts = np.ones(len(frame), bool)
        if chosen.where is not None:
            counts = _that_are(frame, *chosen.where, self._what)
        polygons = np.isin(library("shapely").get_type_id(frame.geometry.values), (3, 6))
        self.ignored = int((counts & ~polygons).sum())
        #: By CRS: polygons, by their places in the file.
        self._frames = {None: frame.geometry[polygons]}
        self._counts, self.reached = counts, False

    def on(self, ground: Ground, stack: ExitStack) -> Truth:
        """See :class:`TruthFile`."""
        crs = None if ground.crs is None else ground.crs.to_wkt()
        given = self._frames[None]
        if (given.crs is None) == (crs is None) and crs not in self._frames:
            self._frames[crs] = given.to_crs(crs)
        laid = self._frames.get(crs, given)
        corners = [ground.transform @ (x, y) for x in (0, ground.width) for y in (0, ground.height)]
        (left, bottom), (right, top) = np.min(corners, 0), np.max(corners, 0)
        near = np.sort(laid.sindex.query(library("shapely").box(left, bottom, right, top)))
        shapes, _ = polygons_on(laid.iloc[near].to_frame("geometry"), ground, self._what)
        numbers = np.asarray(laid.index)[near].astype(np.int64)
        truth = PolygonTruth(shapes, numbers, self._counts[numbers], ground)
        self.reached |= truth.bounds is not None
        return truth


class PolygonTruth:
    """Polygons: a pixel is there where its centre lies in one.

    Args:
        shapes: polygons ``[N]`` around the map, in its pixels.
        numbers: int64 ``[N]``: their places in the file, from 0.
        counts: bool ``[N]``: which of them count.
        ground: the map.

    Attributes:
        shapes: of ``[M]`` polygons that count and reach into the map, valid; each is an object.
        numbers: int64 ``[M]``.
        compared: bool ``[M]``: whether something of them was, as far as :meth:`note` was told.
        bounds: left, top, right, bottom, in pixels, of all polygons there, also of those that do not count;
            ``None``: there are none.
    """

    def __init__(
        self,
        shapes: NDArray[np.object_],
        numbers: NDArray[np.int64],
        counts: NDArray[np.bool_],
        ground: Ground,
    ) -> None:
        shapely = library("shapely")
        on_map = shapely.intersects(shapes, shapely.box(0, 0, ground.width, ground.height))
        self.bounds = shapely.total_bounds(shapes[on_map]) if on_map.any() else None
        there = counts & on_map
        self.shapes = shapely.make_valid(shapes[there], method="structure", keep_collapsed=False)
        self.numbers, self.compared = numbers[there], np.zeros(int(there.sum()), bool)
        self._tree = shapely.STRtree(self.shapes)

    def read(self, part: Rect) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """See :class:`Truth`."""
        there = covered(self.shapes[self._near(part)], part)
        return there, np.ones(there.shape, bool)

    def note(self, part: Rect, compared: NDArray[np.bool_]) -> None:
        """Takes down which polygons have a pixel that was compared, bool ``[h, w]``, in a part of the map."""
        near = self._near(part)
        if compared.all():
            self.compared[near] = True
        elif compared.any():
            for at in near[~self.compared[near]]:
                self.compared[at] = (covered(self.shapes[[at]], part) & compared).any()

    def _near(self, part: Rect) -> NDArray[np.int64]:
        box = library("shapely").box(part.left, part.top, part.right, part.bottom)
        return np.asarray(self._tree.query(box, predicate="intersects"), np.int64)


def _that_are(frame: Any, field: str, values: Sequence[str], what: str) -> NDArray[np.bool_]:
    """Which rows have one of the values in a field, as text; whole numbers without a point."""
    fields = [name for name in frame.columns if name != frame.geometry.name]
    if field not in fields:
        raise UserError(f"{what} has no field {field!r}: its fields are {', '.join(fields) or 'none'}")
    texts = [text_of(value) for value in frame[field]]
    found = np.isin(np.asarray(texts, object), list(values))
    if not found.any():
        known = sorted(set(texts))
        more = f" and {len(known) - 12} more" if len(known) > 12 else ""
        raise UserError(
            f"{what} has no shape whose {field} is {' or '.join(values)}: there are "
            f"{', '.join(known[:12])}{more}"
        )
    return found


class _RasterFile:
    """A raster of values."""

    ignored, reached = 0, True

    def __init__(self, chosen: Chosen) -> None:
        self._what, self._values = f"--truth {chosen.path}", np.asarray(chosen.values, np.float64)
        self._path, self._driver = local_copy(chosen.path), _RASTERS[Path(chosen.path).suffix.lower()]
        if not self._path.exists():
            raise UserError(f"{self._what} does not exist: give polygons, or a raster of values")

    def on(self, ground: Ground, stack: ExitStack) -> Truth:
        """See :class:`TruthFile`."""
        what = self._what
        try:
            file = stack.enter_context(rasterio.open(self._path, driver=self._driver))
        except RasterioError as error:
            raise UserError(f"{what} cannot be read ({error}): give a {self._driver}") from error
        if file.count != 1:
            raise UserError(
                f"{what} has {file.count} bands: the truth is one band of values (gdal_translate -b 1 …)"
            )
        if ground.crs is not None and file.crs is not None:
            grid = {"transform": ground.transform, "width": ground.width, "height": ground.height}
            how = {
                "resampling": Resampling.nearest,
                "add_alpha": file.nodata is None,
                "tolerance": _EXACT,
            }
            file = stack.enter_context(WarpedVRT(file, crs=ground.crs, **grid, **how))
        elif (file.height, file.width) != (ground.height, ground.width):
            raise UserError(
                f"{what} has {file.height} x {file.width} pixels, {ground.path} {ground.height} x "
                f"{ground.width}, and {'the truth' if file.crs is None else 'the map'} names no CRS: give "
                "one of the same size, or name the CRS (gdal_translate -a_srs EPSG:… -a_ullr …)"
            )
        return _RasterTruth(file, self._values, what)


class _RasterTruth:
    """A raster of values on a map's pixels, by its nearest pixel; no data is unknown."""

    def __init__(self, file: Any, values: NDArray[np.float64], what: str) -> None:
        self._file, self._values, self._what = file, values, what

    def read(self, part: Rect) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """See :class:`Truth`."""
        window = rasterio.windows.Window(part.left, part.top, part.width, part.height)
        try:
            values = self._file.read(1, window=window)
            # The band that was added to the file's one; rasterio takes it for a mask in some types alone.
            added = self._file.count > 1
            known = self._file.read(2, window=window) if added else self._file.dataset_mask(window=window)
        except RasterioError as error:
            raise UserError(f"{self._what} cannot be read to its end ({error})") from error
        known = known > 0
        if values.dtype.kind == "f":
            known &= ~np.isnan(values)
        there = np.isin(values, self._values) if len(self._values) else values != 0
        return there & known, known
