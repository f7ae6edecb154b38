"""One raster's map beside the truth: its pixels tile by tile, its objects one to one."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio.windows
from numpy.typing import NDArray
from rasterio.errors import RasterioError

from pipelines.build.progress import Steps
from pipelines.maps.assessment.accuracy import Counts
from pipelines.maps.assessment.files import error_codes, error_raster, tiles
from pipelines.maps.assessment.matching import ObjectCounts, match
from pipelines.maps.assessment.truth import Ground, PolygonTruth, Truth
from pipelines.maps.blend import FULL, NO_DATA, NOT_COMPUTED
from pipelines.maps.grid import Rect
from pipelines.maps.shapes import Area
from pipelines.maps.vectors import FILES, LAYER, square_metres
from pipelines.pictures.georeference import moved, on_pixels
from pipelines.storage.libraries import library
from unigeoseg.errors import UserError

#: Pixels of a side of the squares that are drawn for the measures' spread; a tile has whole ones.
_SQUARE = 256
#: Objects of a smaller area, in pixels, are left of others that were cut.
_SLIVER = 0.5


@dataclass
class Tally:
    """What was counted, of one map or several.

    Attributes:
        squares: of tiles, int64 ``[n, 4]`` each; see :class:`Counts`.
        scores: int64 ``[2, 251]``; see :class:`Counts`.
        metres: square metres in the map, and in the truth; NaN without a CRS.
        left_out: pixels that hold data and were not compared.
        objects: ``None`` where the truth or the map has none.
    """

    squares: list[NDArray[np.int64]] = field(default_factory=list)
    scores: NDArray[np.int64] = field(default_factory=lambda: np.zeros((2, FULL + 1), np.int64))
    metres: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    left_out: int = 0
    objects: ObjectCounts | None = None

    @property
    def counts(self) -> Counts:
        """For the measures."""
        return Counts(np.concatenate(self.squares), self.scores)

    @property
    def compared(self) -> int:
        """Pixels."""
        return int(self.scores.sum())

    def tile(
        self, found: NDArray[np.bool_], there: NDArray[np.bool_], known: NDArray[np.bool_],
        score: NDArray[np.uint8], pixel: float,
    ) -> None:  # fmt: skip
        """Adds a tile.

        Args:
            found: where the map found it, bool ``[h, w]``.
            there: where it is.
            known: where both are known.
            score: of ``score.tif``.
            pixel: square metres of a pixel.
        """
        kinds = np.stack([found & there, found & ~there, ~found & there, ~found & ~there], -1)
        kinds &= known[..., None]
        rows, columns = (np.arange(0, size, _SQUARE) for size in found.shape)
        squares = np.add.reduceat(np.add.reduceat(kinds, rows, 0, np.int64), columns, 1)
        self.squares.append(squares.reshape(-1, 4))
        both = 256 * there[known].astype(np.int64) + score[known]
        self.scores += np.bincount(both, minlength=512).reshape(2, 256)[:, : FULL + 1]
        self.metres += [pixel * (found & known).sum(), pixel * (there & known).sum()]

    def add(self, other: "Tally") -> None:
        """Adds another map."""
        self.squares += other.squares
        self.scores += other.scores
        self.metres += other.metres
        self.left_out += other.left_out
        if other.objects is not None:
            self.objects = other.objects if self.objects is None else self.objects + other.objects


def compare_pixels(
    files: list[Any], truth: Truth, area: Area | None, ground: Ground, target: Path, progress: bool
) -> Tally:
    """Reads a map tile by tile; writes ``errors.tif``.

    Args:
        files: mask and score, opened.
        truth: on the map's pixels.
        area: outside which nothing is compared; ``None``: everywhere.
        ground: the map's pixels.
        target: folder for the file.
        progress: tells on stderr.

    Raises:
        UserError: the map or the truth is damaged.
        OSError, rasterio.errors.RasterioError: the file cannot be written.
    """
    tally, places = Tally(), tiles(ground.height, ground.width)
    name = f"assess {Path(ground.path).name}"
    with (
        error_raster(files[0], target) as errors,
        Steps(name, "tile", len(places), enabled=progress) as steps,
    ):
        for place in places:
            window = rasterio.windows.Window(place.left, place.top, place.width, place.height)
            mask, score = _read(files, window, ground)
            there, known = truth.read(place)
            known = known & (mask < NOT_COMPUTED)
            if area is not None:
                known &= area.inside(place)
            if isinstance(truth, PolygonTruth):
                truth.note(place, known)
            tally.tile(mask == 1, there, known, score, _pixel(place, ground))
            tally.left_out += int((~known & (mask != NO_DATA)).sum())
            errors.write(error_codes(mask == 1, there, known), 1, window=window)
            steps.update(1)
    return tally


def _read(files: list[Any], window: Any, ground: Ground) -> list[NDArray[np.uint8]]:
    try:
        return [file.read(1, window=window) for file in files]
    except RasterioError as error:
        raise UserError(f"{ground.path} cannot be read to its end ({error}): map it again") from error


def _pixel(place: Rect, ground: Ground) -> float:
    """Square metres of a pixel of a tile, on the ellipsoid; NaN without a CRS."""
    box = library("shapely").box(place.left, place.top, place.right, place.bottom)
    crs = None if ground.crs is None else ground.crs.to_wkt()
    area = square_metres(moved(np.asarray([box], object), ground.transform), crs)[0]
    return float(area / (place.height * place.width))


def has_objects(folder: Path) -> bool:
    """Whether a map's objects can be compared."""
    return (folder / FILES["gpkg"]).is_file()


def compare_objects(
    folder: Path, truth: PolygonTruth, area: Area | None, ground: Ground
) -> tuple[ObjectCounts, dict[str, Any]]:
    """Counts, and the layers of ``errors.gpkg``: what was missed, and what is false.

    Args:
        folder: of the map, with its objects.
        truth: that was told what was compared.
        area: outside which nothing is compared; ``None``: everywhere.
        ground: the map's pixels.
    """
    geopandas, shapely = library("geopandas"), library("shapely")
    frame = library("pyogrio").read_dataframe(folder / FILES["gpkg"], layer=LAYER)
    zone = shapely.box(0, 0, ground.width, ground.height)
    if area is not None:
        zone = shapely.intersection(zone, area.union)
    own, own_shapes = _cut(truth.shapes, zone)
    own, own_shapes = own[truth.compared[own]], own_shapes[truth.compared[own]]
    found, found_shapes = _cut(shapely.make_valid(on_pixels(frame, ground.crs, ground.transform)), zone)
    same = match(own_shapes, found_shapes)
    lost, false = same.truth < 0, same.found < 0
    layers = {
        "missed": geopandas.GeoDataFrame(
            {"shape": truth.numbers[own[lost]], "closest_iou": same.closest_truth[lost].round(4)},
            geometry=moved(truth.shapes[own[lost]], ground.transform),
            crs=frame.crs,
        ),
        "false": frame.iloc[found[false]][["id", "score_mean", frame.geometry.name]].assign(
            closest_iou=same.closest_found[false].round(4)
        ),
    }
    return same.counts(int((~truth.compared).sum())), layers


def _cut(shapes: NDArray[np.object_], zone: Any) -> tuple[NDArray[np.int64], NDArray[np.object_]]:
    """Places of shapes, and the shapes as far as they lie in what is compared; no slivers."""
    shapely = library("shapely")
    cut = shapely.intersection(shapes, zone)
    kept = np.flatnonzero(shapely.area(cut) >= _SLIVER)
    return kept, cut[kept]
