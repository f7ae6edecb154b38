"""Where a mask lies on its picture: by georeference where both have one, else pixel on pixel."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rasterio.transform import Affine
from rasterio.warp import transform as transform_points

from pipelines.pictures.errors import UnusableImage
from pipelines.pictures.picture import Picture, turn_rows
from pipelines.pictures.rasters import ALL, FileRaster, Grid, Raster
from pipelines.pictures.turn import SOUTH_UP, UPRIGHT, turned_size

#: Corners that are closer than this many pixels are one place.
_SAME = 0.5


@dataclass(frozen=True)
class Frame:
    """The picture on which labels were drawn: its size, and how it is turned to be the one that is seen."""

    height: int
    width: int
    turn: int = UPRIGHT


def stored_size(picture: Picture) -> tuple[int, int]:
    """Height and width of a picture as its file stores it."""
    return turned_size(picture.height, picture.width, picture.turn)


def frame_of(picture: Picture, listed: tuple[int, int] | None, labels: str, where: str) -> Frame:
    """On which picture labels were drawn: as it is stored, or as it is seen.

    Where the picture is not turned both are the same. Where nothing tells them apart, labels belong to the
    stored pixels.

    Args:
        picture: opened.
        listed: height and width that the labels give, if they do.
        labels: the file of the labels, for messages.
        where: the picture, for messages.

    Raises:
        UnusableImage: ``labels_size``: the labels were drawn on a picture of another size.
    """
    stored, seen = stored_size(picture), (picture.height, picture.width)
    if listed is None or listed == stored:
        return Frame(*stored, picture.turn)
    if listed == seen:
        return Frame(*seen)
    raise UnusableImage(
        "labels_size",
        where,
        f"{labels} was drawn on a picture of {listed[1]}x{listed[0]} pixels, this one is {stored[1]}x"
        f"{stored[0]}: take the picture that was labelled, or scale the labels",
    )


class Warped:
    """Rows of a mask laid on a picture by georeference, nearest pixels.

    Args:
        mask: rows of the mask, as stored.
        file: of the mask.
        picture: upright.
        at: from pixels of the upright picture to its coordinates.
    """

    def __init__(self, mask: Raster, file: FileRaster, picture: Picture, at: Affine) -> None:
        self._mask, self._file, self._at = mask, file, at
        assert picture.file is not None
        self._crs = picture.file.data.crs
        self.height, self.width = picture.height, picture.width

    def rows(self, start: int, stop: int, columns: slice = ALL) -> Grid:
        """Values of the mask, 0 where it does not reach."""
        rows, across, inside = self._places(start, stop, columns)
        if not inside.any():
            return np.zeros_like(
                self._mask.rows(0, 1), shape=(*inside.shape, *self._mask.rows(0, 1).shape[2:])
            )
        first, last = int(rows[inside].min()), int(rows[inside].max())
        left, right = int(across[inside].min()), int(across[inside].max())
        values = self._mask.rows(first, last + 1, slice(left, right + 1))
        found = values[np.clip(rows - first, 0, last - first), np.clip(across - left, 0, right - left)]
        found[~inside] = 0
        return np.asarray(found)

    def inside(self) -> Raster:
        """Where the mask reaches, bool ``[h, W]``."""
        return _Inside(self)

    def _places(
        self, start: int, stop: int, columns: slice
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        left, right, _ = columns.indices(self.width)
        y, x = np.mgrid[start:stop, left:right].astype(np.float64) + 0.5
        found, rows = to_mask(self._at, self._crs, self._file, x, y)
        rows, across = np.floor(rows).astype(np.int64), np.floor(found).astype(np.int64)
        inside = (rows >= 0) & (rows < self._file.height) & (across >= 0) & (across < self._file.width)
        return rows, across, inside


class _Inside:
    def __init__(self, warped: Warped) -> None:
        self._warped, self.height, self.width = warped, warped.height, warped.width

    def rows(self, start: int, stop: int, columns: slice = ALL) -> NDArray[np.bool_]:
        return self._warped._places(start, stop, columns)[2]


def to_mask(at: Affine, crs: object, file: FileRaster, x: Grid, y: Grid) -> tuple[Grid, Grid]:
    """Columns and rows of a mask at pixels x, y of a picture."""
    east, north = at.a * x + at.b * y + at.c, at.d * x + at.e * y + at.f
    if file.data.crs != crs:
        flat = transform_points(crs, file.data.crs, east.ravel(), north.ravel())
        east, north = (np.asarray(v, np.float64).reshape(x.shape) for v in flat)
        east, north = np.nan_to_num(east, posinf=-1e300), np.nan_to_num(north, posinf=-1e300)
    back = ~file.data.transform
    columns = back.a * east + back.b * north + back.c
    rows = back.d * east + back.e * north + back.f
    return np.clip(columns, -1e15, 1e15), np.clip(rows, -1e15, 1e15)


def lay(mask: Raster, file: FileRaster, picture: Picture, where: str) -> tuple[Raster, Raster | None]:
    """A mask on its upright picture, and where it reaches (``None``: everywhere).

    Args:
        mask: rows, as stored.
        file: of the mask.
        picture: opened.
        where: the picture's file, for messages.

    Raises:
        UnusableImage: ``mask_size`` or ``georeference``, naming both.
    """
    placed = picture.file is not None and _placed(picture.file) and _placed(file)
    if placed and picture.file is not None:
        found = _by_place(mask, file, picture, picture.file, where)
        if found is not None:
            return found
    stored, seen = stored_size(picture), (picture.height, picture.width)
    size = (file.height, file.width)
    if size == stored and not placed:
        return turn_rows(mask, picture.turn), None
    if size == seen:
        return mask, None
    raise UnusableImage(
        "mask_size",
        file.where,
        f"the mask is {size[1]}x{size[0]} pixels, its image {stored[1]}x{stored[0]}",
    )


def _placed(file: FileRaster) -> bool:
    return not file.data.transform.is_identity


def _by_place(
    mask: Raster, file: FileRaster, picture: Picture, image: FileRaster, where: str
) -> tuple[Raster, Raster | None] | None:
    """The mask by georeference; ``None`` where it lies pixel on pixel."""
    at = image.data.transform
    if picture.turn == SOUTH_UP:
        at = at @ Affine(1, 0, 0, 0, -1, image.height)
    one, two = image.data.crs, file.data.crs
    comparable = one is not None and two is not None
    corners = np.asarray([[0, 0], [1, 0], [0, 1], [1, 1]], np.float64) * [picture.width, picture.height]
    x, y = corners[:, 0], corners[:, 1]
    columns, rows = to_mask(at, one if comparable else two, file, x, y)
    near = max(np.abs(columns - x).max(), np.abs(rows - y).max()) < _SAME
    if near and (file.height, file.width) == (picture.height, picture.width):
        return None
    reaches = columns.max() > 0 and rows.max() > 0 and columns.min() < file.width and rows.min() < file.height
    if comparable and reaches:
        warped = Warped(mask, file, picture, at)
        return warped, warped.inside()
    why = "they do not overlap" if comparable else "one of them names no coordinate system"
    raise UnusableImage(
        "georeference",
        file.where,
        f"the mask lies elsewhere than its image {where} ({_told(file)} against {_told(image)}), and {why}: "
        "correct the georeference of one, or remove it from both to lay pixel on pixel",
    )


def _told(file: FileRaster) -> str:
    at = file.data.transform
    return f"{file.data.crs or 'no CRS'}, corner {at.c:.10g}, {at.f:.10g}, pixel {at.a:.6g} x {at.e:.6g}"
