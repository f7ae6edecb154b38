"""An input of a map: opened, placed on the Earth, at the resolution that the model looks at."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.transform import Affine

from pipelines.maps.grid import Rect, reflected
from pipelines.maps.raster import MapRaster
from pipelines.maps.request import Request
from pipelines.pictures.colour import Shown, chosen_bands
from pipelines.pictures.errors import UnusableImage
from pipelines.pictures.georeference import Georeference
from pipelines.pictures.picture import Rules, limits_of, open_picture
from pipelines.pictures.rasters import BY_PARTS, ArrayRaster, Flipped, Raster, fetched, kind_of
from pipelines.pictures.remote import where_is
from pipelines.storage.libraries import library
from unigeoseg.errors import UserError
from unigeoseg.samples.letterbox import Letterbox

#: Pictures without a CRS are held whole; more pixels are refused.
_MOST = 178_956_970
_VRT = b"<VRTDataset"


@dataclass
class Scene:
    """An opened input.

    Attributes:
        path: as it was given.
        raster: rows, uint8 RGB ``[h, W, 3]``, north up, at the working resolution.
        valid: rows, bool ``[h, W]``; ``None``: everywhere.
        place: of the working pixels; ``None``: pixel units.
        gsd: metres of a working pixel, across and down; ``None``: pixel units.
        native: height and width of the file.
        limits: low and high value that became 0 and 255, a band; ``None``: bytes as they are.
        date: of the picture, as its file tells it.
        file: opened, where it was read by parts.
        again: how it is opened elsewhere.
    """

    path: str
    raster: Raster
    valid: Raster | None
    place: Georeference | None
    gsd: tuple[float, float] | None
    native: tuple[int, int]
    limits: list[list[float]] | None = None
    date: str | None = None
    file: MapRaster | None = None
    again: "Opening | None" = None

    def __reduce__(self) -> Any:
        """Another process opens the file itself, and shows it with this one's stretch."""
        assert self.again is not None
        return self.again, (self.limits,)

    @property
    def height(self) -> int:
        """Rows at the working resolution."""
        return self.raster.height

    @property
    def width(self) -> int:
        """Columns at the working resolution."""
        return self.raster.width

    @property
    def transform(self) -> Affine:
        """From working pixels (x, y) to coordinates; pixels as they are without a place."""
        return self.place.transform if self.place else Affine.identity()

    @property
    def crs(self) -> Any:
        """Rasterio's; ``None``: pixel units."""
        return self.place.crs if self.place else None

    def read(self, part: Rect) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Pixels uint8 ``[h, w, 3]`` and where they hold data, of a part inside the raster."""
        pixels = np.ascontiguousarray(self.raster.rows(part.top, part.bottom, part.columns))
        if self.valid is None:
            return pixels, np.ones(pixels.shape[:2], bool)
        return pixels, np.asarray(self.valid.rows(part.top, part.bottom, part.columns))

    def window(self, window: Rect) -> tuple[NDArray[np.uint8], NDArray[np.bool_], Rect]:
        """A window: its pixels ``[S, S, 3]``, mirrored past the edges, and the part of it that is there."""
        part = window.cut(Rect(0, 0, self.height, self.width))
        pixels, valid = self.read(part)
        if (part.height, part.width) != (window.height, window.width):
            down = reflected(window.top - part.top, window.bottom - part.top, part.height)
            across = reflected(window.left - part.left, window.right - part.left, part.width)
            pixels = np.ascontiguousarray(pixels[down][:, across])
        return pixels, valid, part


@dataclass(frozen=True)
class Opening:
    """How one input is opened.

    Attributes:
        path: file or URL.
        request: how it is shown and placed.
        size: side of the model's window.
    """

    path: str
    request: Request
    size: int

    def __call__(self, limits: list[list[float]] | None) -> Scene:
        """Opens it with a stretch that is known.

        Args:
            limits: see :class:`Scene`.
        """
        file = _open_file(self.path, self.request)
        return self.of(file, None if limits is None else np.asarray(limits, np.float64))

    def of(self, file: MapRaster | None, limits: NDArray[np.float64] | None) -> Scene:
        """The input, of its file where that is read by parts."""
        if file is None:
            scene = _held(self.path, self.request, self.size)
        else:
            scene = _by_parts(self.path, file, limits, self.request, self.size)
        return replace(scene, again=self)


def open_scenes(paths: Sequence[str], request: Request, size: int) -> list[Scene]:
    """Opens the inputs of a map, with one stretch for all of them.

    Args:
        paths: files or URLs.
        request: how they are shown and placed.
        size: side of the model's window.

    Raises:
        UserError: one cannot be read or placed.
    """
    files = [_open_file(path, request) for path in paths]
    limits = _stretches([file for file in files if file is not None], request)
    return [
        Opening(path, request, size).of(file, None if file is None else limits[_alike(file)])
        for path, file in zip(paths, files, strict=True)
    ]


def _alike(file: MapRaster) -> tuple[Any, ...]:
    """What files have in common that get the same stretch."""
    return (file.dtype, file.bands, *((file.bits, bool(file.palette())) if file.dtype == np.uint8 else ()))


def _stretches(
    files: Sequence[MapRaster], request: Request
) -> dict[tuple[Any, ...], NDArray[np.float64] | None]:
    """The stretch of each kind of file: one look at each, before any is given another resolution."""
    groups: dict[tuple[Any, ...], list[MapRaster]] = {}
    for file in files:
        groups.setdefault(_alike(file), []).append(file)
    return {
        kind: limits_of(first, chosen_bands(first, request.bands), request.stretch, others)
        for kind, (first, *others) in groups.items()
    }


def _open_file(path: str, request: Request) -> MapRaster | None:
    """A raster file that is read by parts; ``None`` for a picture without a place."""
    source = where_is(path)
    try:
        if isinstance(source, Path) and source.is_file() and _is_vrt(source):
            if not request.allow_vrt:
                raise UserError(
                    f"{path} is a VRT, which makes GDAL read the files and servers it names: make one file "
                    f"of it (gdal_translate {Path(path).name} one.tif), or allow it with --allow-vrt"
                )
            return MapRaster(source, path, "VRT", request.nodata)
        if isinstance(source, Path) and not source.is_file():
            raise UserError(f"--input {path} does not exist; give a raster or a folder")
        held = fetched(source)
        if isinstance(held, bytes) or kind_of(held) not in BY_PARTS:
            return None
    except (OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"--input {path} cannot be read ({error}); give a GeoTIFF or a picture") from error
    file = MapRaster(source, path, None, request.nodata)
    told = file.data
    if not told.crs and (told.gcps[0] or told.rpcs) and told.transform.is_identity:
        way = "-rpc" if told.rpcs else "-tps"
        raise UserError(
            f"{path} is placed by {'RPCs' if told.rpcs else 'ground control points'} alone, not on a grid: "
            f"gdalwarp {way} -t_srs EPSG:4326 -r cubic {path} warped.tif (or another CRS), and map that"
        )
    return file


def _is_vrt(source: Path) -> bool:
    with source.open("rb") as handle:
        return handle.read(512).lstrip().startswith(_VRT)


def _by_parts(
    path: str, file: MapRaster, limits: NDArray[np.float64] | None, request: Request, size: int
) -> Scene:
    bands = chosen_bands(file, request.bands)
    crs = _crs_of(path, file.data.crs, request)
    if crs is None:
        return replace(_held(path, request, size), limits=_plain(limits))
    transform = file.data.transform
    if transform.is_identity:
        raise UserError(f"{path} does not say where it lies in its CRS: set that (gdal_edit.py -a_ullr)")
    flipped = transform.e > 0 and transform.b == 0 and transform.d == 0
    if flipped:
        transform = transform @ Affine(1, 0, 0, 0, -1, file.height)
    native = (file.height, file.width)
    metres = pixel_metres(crs, transform, *native)
    height, width = _working_size(native, metres, request, size)
    file.resize(height, width)
    transform = transform @ Affine.scale(native[1] / width, native[0] / height)
    gsd = (metres[0] * native[1] / width, metres[1] * native[0] / height)
    shown = Shown(file, bands, limits)
    raster: Raster = Flipped(shown) if flipped else shown
    valid = shown.validity()
    if valid is not None and flipped:
        valid = Flipped(valid)
    date = str(file.data.tags().get("TIFFTAG_DATETIME", ""))[:10].replace(":", "-") or None
    place = Georeference(crs, transform)
    return Scene(path, raster, valid, place, gsd, native, _plain(limits), date, file)


def _plain(limits: NDArray[np.float64] | None) -> list[list[float]] | None:
    return None if limits is None else [[float(v) for v in pair] for pair in limits]


def _held(path: str, request: Request, size: int) -> Scene:
    """A picture without a place, held whole."""
    if request.crs is not None:
        raise UserError(
            f"{path} does not say where it lies, so --crs alone places nothing: make a GeoTIFF of it "
            f"(gdal_translate -a_srs {request.crs} -a_ullr …), or take it as a plain picture (--pixels)"
        )
    if not request.pixels:
        raise UserError(
            f"{path} names no CRS: say which its coordinates are in (--crs EPSG:…), or take it as a plain "
            "picture with results in pixels (--pixels)"
        )
    if request.gsd is not None:
        raise UserError(f"{path} has no CRS, so --gsd has nothing to be compared with: leave it out")
    try:
        picture = open_picture(where_is(path), Rules(bands=request.bands, stretch=request.stretch))
    except UnusableImage as error:
        raise UserError(f"--input {path}: {error.detail}") from error
    native = (picture.height, picture.width)
    if native[0] * native[1] > _MOST:
        raise UserError(
            f"{path} has {native[1]}x{native[0]} pixels and no CRS; pictures without one are held whole, up "
            f"to {_MOST} pixels: give --crs"
        )
    pixels = picture.pixels()
    valid = None if picture.valid is None else np.asarray(picture.valid.rows(0, native[0]))
    height, width = _working_size(native, None, request, size)
    if (height, width) != native:
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
        if valid is not None:
            valid = cv2.resize(valid.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0
    return Scene(path, ArrayRaster(pixels), None if valid is None else ArrayRaster(valid), None, None, native)


def _crs_of(path: str, own: Any, request: Request) -> Any:
    """The CRS of an input; ``None``: pixel units."""
    if request.crs is None:
        return own or None
    try:
        given = CRS.from_user_input(request.crs)
    except (CRSError, ValueError) as error:
        raise UserError(
            f"--crs {request.crs} is no coordinate system: give one such as EPSG:32633"
        ) from error
    if own and own != given:
        raise UserError(
            f"{path} is in {own.to_string()}, and --crs says {request.crs}: leave --crs out, or correct it "
            f"(gdal_edit.py -a_srs {request.crs} {path})"
        )
    return given


def pixel_metres(crs: Any, transform: Affine, height: int, width: int) -> tuple[float, float]:
    """Metres of a pixel across and down at the raster's centre, along the ellipsoid.

    Raises:
        UserError: the centre lies outside what the CRS can tell.
    """
    pyproj = library("pyproj")
    known = pyproj.CRS.from_user_input(crs.to_wkt())
    to_degrees = pyproj.Transformer.from_crs(known, known.geodetic_crs, always_xy=True)
    x, y = width / 2, height / 2
    ends = [transform @ at for at in ((x - 0.5, y), (x + 0.5, y), (x, y - 0.5), (x, y + 0.5))]
    east, north = to_degrees.transform(*zip(*ends, strict=True))
    if not np.isfinite([*east, *north]).all():
        raise UserError(f"the centre {transform @ (x, y)} is no place in {crs.to_string()}; look at its CRS")
    _, _, metres = known.get_geod().inv(east[::2], north[::2], east[1::2], north[1::2])
    return float(metres[0]), float(metres[1])


def _working_size(
    native: tuple[int, int], metres: tuple[float, float] | None, request: Request, size: int
) -> tuple[int, int]:
    """Height and width at which the model looks."""
    if request.scope == "scene":
        if max(native) <= size:
            return native
        fit = Letterbox.fit(*native, size)
        return fit.inner_height, fit.inner_width
    if request.gsd is None or metres is None:
        return native
    if not math.isfinite(request.gsd) or request.gsd <= 0:
        raise UserError(f"--gsd {request.gsd}: give metres a pixel, above 0")
    across, down = (request.gsd / m for m in metres)
    return max(1, round(native[0] / down)), max(1, round(native[1] / across))
