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

    @property
    def whole(self) -> Rect:
        """All of it."""
        return Rect(0, 0, self.height, self.width)


@dataclass(frozen=True)
class Chosen:
    """What of a file is the truth.

    Attributes:
        path: file or URL.
        layer: of a vector file with several; ``None``: the first.
        where: field and the values of it that count; ``None``: all shapes.
        values: of a raster, those that count; empty: all but 0.
    """

    path: str
    layer: str | None = None
    where: tuple[str, Sequence[str]] | None = None
    values: Sequence[float] = ()


class Truth(Protocol):
    """The truth on the pixels of a map."""

    #: Shapes of the file that are no polygons.
    ignored: int

    def read(self, part: Rect) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Where it is there, and where that is known: bool ``[h, w]`` each."""
        ...


def open_truth(chosen: Chosen, ground: Ground, stack: ExitStack) -> Truth:
    """Opens a file of truth.

    Args:
        chosen: file, and what of it counts.
        ground: the map.
        stack: closes it.

    Raises:
        UserError: it cannot be read or laid on the map, or holds nothing that counts.
    """
    if Path(chosen.path).suffix.lower() in _RASTERS:
        if chosen.where is not None or chosen.layer is not None:
            raise UserError(f"--truth {chosen.path} is a raster: --where and --layer are for shapes")
        return _RasterTruth(chosen, ground, stack)
    if chosen.values:
        raise UserError(f"--truth {chosen.path} holds shapes: --values is for a raster")
    return PolygonTruth(chosen, ground)


class PolygonTruth:
    """Polygons: a pixel is there where its centre lies in one.

    Args:
        chosen: the file.
        ground: the map.

    Attributes:
        shapes: of ``[N]`` polygons that reach into the map, in pixels, valid; each is an object.
        numbers: int64 ``[N]``: their places in the file, from 0.
        compared: bool ``[N]``: whether something of them was, as far as :meth:`note` was told.
        bounds: left, top, right, bottom, in pixels, of all polygons there, also of those that do not count.

    Raises:
        UserError: see :func:`open_truth`.
    """

    def __init__(self, chosen: Chosen, ground: Ground) -> None:
        shapely = library("shapely")
        what = f"--truth {chosen.path}"
        frame = read_shapes(chosen.path, "--truth", chosen.layer).reset_index(drop=True)
        shapes, polygons = polygons_on(frame, ground, what)
        on_map = polygons & shapely.intersects(shapes, shapely.box(0, 0, ground.width, ground.height))
        counts = np.ones(len(frame), bool)
        if chosen.where is not None:
            counts = _that_are(frame, *chosen.where, what)
        self.ignored, there = int((counts & ~polygons).sum()), counts & on_map
        if not there.any():
            raise UserError(f"{what} has no polygon on {ground.path}: look at its CRS")
        self.bounds = shapely.total_bounds(shapes[on_map])
        valid = shapely.make_valid(shapes[there], method="structure", keep_collapsed=False)
        self.shapes = valid
        self.numbers = np.asarray(frame.index)[there].astype(np.int64)
        self.compared = np.zeros(len(valid), bool)
        self._tree = shapely.STRtree(valid)

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
    texts = [_text(value) for value in frame[field]]
    found = np.isin(np.asarray(texts, object), list(values))
    if not found.any():
        known = sorted(set(texts))
        more = f" and {len(known) - 12} more" if len(known) > 12 else ""
        raise UserError(
            f"{what} has no shape whose {field} is {' or '.join(values)}: there are "
            f"{', '.join(known[:12])}{more}"
        )
    return found


def _text(value: Any) -> str:
    whole = isinstance(value, float | np.floating) and float(value).is_integer()
    return str(int(value)) if whole else str(value)


class _RasterTruth:
    """A raster of values, by its nearest pixel; no data is unknown.

    Args:
        chosen: the file.
        ground: the map.
        stack: closes it.

    Raises:
        UserError: see :func:`open_truth`.
    """

    ignored = 0

    def __init__(self, chosen: Chosen, ground: Ground, stack: ExitStack) -> None:
        what = f"--truth {chosen.path}"
        self._values = np.asarray(chosen.values, np.float64)
        path, driver = local_copy(chosen.path), _RASTERS[Path(chosen.path).suffix.lower()]
        if not path.exists():
            raise UserError(f"{what} does not exist: give polygons, or a raster of values")
        try:
            file = stack.enter_context(rasterio.open(path, driver=driver))
        except RasterioError as error:
            raise UserError(f"{what} cannot be read ({error}): give a {driver}") from error
        if file.count != 1:
            raise UserError(
                f"{what} has {file.count} bands: the truth is one band of values (gdal_translate -b 1 …)"
            )
        if ground.crs is not None and file.crs is not None:
            grid = {"transform": ground.transform, "width": ground.width, "height": ground.height}
            how = {"resampling": Resampling.nearest, "add_alpha": file.nodata is None, "tolerance": _EXACT}
            self._file: Any = stack.enter_context(WarpedVRT(file, crs=ground.crs, **grid, **how))
        elif (file.height, file.width) == (ground.height, ground.width):
            self._file = file
        else:
            raise UserError(
                f"{what} has {file.height} x {file.width} pixels, {ground.path} {ground.height} x "
                f"{ground.width}, and {'the truth' if file.crs is None else 'the map'} names no CRS: give "
                "one of the same size, or name the CRS (gdal_translate -a_srs EPSG:… -a_ullr …)"
            )

    def read(self, part: Rect) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """See :class:`Truth`."""
        window = rasterio.windows.Window(part.left, part.top, part.width, part.height)
        values = self._file.read(1, window=window)
        # The band that was added to the file's one; rasterio takes it for a mask in some types alone.
        added = self._file.count > 1
        known = (self._file.read(2, window=window) if added else self._file.dataset_mask(window=window)) > 0
        if values.dtype.kind == "f":
            known &= ~np.isnan(values)
        there = np.isin(values, self._values) if len(self._values) else values != 0
        return there & known, known
