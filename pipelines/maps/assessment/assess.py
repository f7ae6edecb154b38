"""The comparison of a map with the truth: tile by tile, and object by object."""

import json
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.windows
from numpy.typing import NDArray
from rasterio.errors import RasterioError

from pipelines.build.progress import Steps
from pipelines.maps.assessment.accuracy import Counts, agreement, thresholds
from pipelines.maps.assessment.files import (
    ERRORS,
    OBJECTS,
    PICTURE,
    draw_assessment,
    error_codes,
    error_raster,
    tiles,
    write_error_objects,
)
from pipelines.maps.assessment.matching import match
from pipelines.maps.assessment.truth import Chosen, Ground, PolygonTruth, Truth, open_truth
from pipelines.maps.blend import FULL, NO_DATA, NOT_COMPUTED
from pipelines.maps.export import finished
from pipelines.maps.grid import Rect
from pipelines.maps.rasters_out import MASK, SCORE
from pipelines.maps.shapes import Area, read_shapes
from pipelines.maps.vectors import FILES, LAYER, square_metres
from pipelines.pictures.georeference import on_pixels
from pipelines.storage.libraries import check_libraries, library
from unigeoseg.errors import UserError

ASSESSMENT = "assessment.json"
#: Pixels of a side of the squares that are drawn for the measures' spread; a tile has whole ones.
_SQUARE = 256
#: Polygons whose rectangle covers less of what is compared were drawn for a part of it, most likely.
_PART = 0.5
#: Objects of a smaller area, in pixels, are left of others that were cut.
_SLIVER = 0.5


@dataclass
class _Sums:
    """What the tiles add up to; square metres of the map and of the truth."""

    squares: list[NDArray[np.int64]] = field(default_factory=list)
    scores: NDArray[np.int64] = field(default_factory=lambda: np.zeros((2, FULL + 1), np.int64))
    metres: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    left_out: int = 0

    def add(
        self, found: NDArray[np.bool_], there: NDArray[np.bool_], known: NDArray[np.bool_],
        score: NDArray[np.uint8], pixel: float,
    ) -> None:  # fmt: skip
        """A tile, whose pixels have so many square metres each."""
        kinds = np.stack([found & there, found & ~there, ~found & there, ~found & ~there], -1)
        kinds &= known[..., None]
        rows, columns = (np.arange(0, size, _SQUARE) for size in found.shape)
        squares = np.add.reduceat(np.add.reduceat(kinds, rows, 0, np.int64), columns, 1)
        self.squares.append(squares.reshape(-1, 4))
        both = 256 * there[known].astype(np.int64) + score[known]
        self.scores += np.bincount(both, minlength=512).reshape(2, 256)[:, : FULL + 1]
        self.metres += [pixel * (found & known).sum(), pixel * (there & known).sum()]


def assess_map(
    map_folder: str | Path, chosen: Chosen, out: str | Path, aoi: str | None = None, progress: bool = True
) -> dict[str, Any]:
    """Compares a map with the truth, pixel by pixel and object by object.

    What the map has not computed, what the truth does not know and what lies outside ``aoi`` is left out.

    Args:
        map_folder: of one raster's map.
        chosen: the truth.
        out: new folder, for ``assessment.json``, ``errors.tif``, ``errors.gpkg`` and ``assessment.png``.
        aoi: polygons outside which nothing is compared.
        progress: tells on stderr.

    Returns:
        The content of ``assessment.json``; docs/maps.md tells its keys.

    Raises:
        UserError: there is no such map, the truth cannot be laid on it, or something cannot be written.
    """
    check_libraries()
    folder, target = Path(map_folder), Path(out)
    about = finished(folder)
    if target.exists() and any(target.iterdir()):
        raise UserError(f"--out {target} is not empty; give a new folder")
    with ExitStack() as stack:
        try:
            files = [stack.enter_context(rasterio.open(folder / name)) for name in (MASK, SCORE)]
        except RasterioError as error:
            raise UserError(f"{folder} is no whole map ({error}): map again with --resume") from error
        ground = Ground(str(folder), files[0].height, files[0].width, files[0].crs, files[0].transform)
        truth = open_truth(chosen, ground, stack)
        area = None if aoi is None else Area(read_shapes(aoi, "--aoi"), ground, f"--aoi {aoi}")
        try:
            target.mkdir(parents=True, exist_ok=True)
            sums = _compared(files, truth, area, ground, target, progress)
            counts = Counts(np.concatenate(sums.squares), sums.scores)
            if not counts.squares.any():
                part = " inside --aoi" if aoi else ""
                raise UserError(f"{folder}: {chosen.path} knows nothing of it{part}: look at their CRS")
            layers, objects = _objects(folder, truth, area, ground)
            told = _asked(folder, about, chosen, truth, aoi) | {
                **agreement(counts),
                "pixels": _pixels(counts, sums.left_out),
                "area_m2": _areas(sums, ground),
                "objects": objects,
                "thresholds": thresholds(counts),
                "warnings": _warnings(truth, area, ground, about, sums, counts),
            }
            return told | {"outputs": _write(told, layers, target)}
        except (OSError, RasterioError) as error:
            raise UserError(f"--out {target} cannot be written ({error}): make room") from error
        finally:
            if not (target / ASSESSMENT).is_file():  # nothing half done, so that the same command may follow
                for name in (ERRORS, OBJECTS, PICTURE):
                    (target / name).unlink(missing_ok=True)


def _asked(
    folder: Path, about: dict[str, Any], chosen: Chosen, truth: Truth, aoi: str | None
) -> dict[str, Any]:
    return {
        "map": str(folder),
        "instruction": about["instruction"],
        "threshold": about["threshold"],
        "truth": {
            "path": chosen.path,
            "layer": chosen.layer,
            "where": None if chosen.where is None else [chosen.where[0], list(chosen.where[1])],
            "values": list(chosen.values) or None,
            "ignored": truth.ignored,
        },
        "aoi": aoi,
    }


def _write(told: dict[str, Any], layers: dict[str, Any], target: Path) -> dict[str, str]:
    """Writes everything but ``errors.tif``, which is there; the paths by what they are."""
    if layers:
        write_error_objects(layers, target)
    draw_assessment(told, target)
    names = {"errors": ERRORS, "picture": PICTURE, **({"objects": OBJECTS} if layers else {})}
    outputs = {name: str(target / file) for name, file in names.items()}
    text = json.dumps(told | {"outputs": outputs}, indent=2, ensure_ascii=False)
    (target / ASSESSMENT).write_text(text + "\n", encoding="utf-8")
    return outputs


def _compared(
    files: list[Any], truth: Truth, area: Area | None, ground: Ground, target: Path, progress: bool
) -> _Sums:
    """Reads the map tile by tile; writes ``errors.tif``."""
    sums, places = _Sums(), tiles(ground.height, ground.width)
    with (
        error_raster(files[0], target) as errors,
        Steps("assess", "tile", len(places), enabled=progress) as steps,
    ):
        for place in places:
            window = rasterio.windows.Window(place.left, place.top, place.width, place.height)
            mask, score = (file.read(1, window=window) for file in files)
            there, known = truth.read(place)
            known = known & (mask < NOT_COMPUTED)
            if area is not None:
                known &= area.inside(place)
            if isinstance(truth, PolygonTruth):
                truth.note(place, known)
            sums.add(mask == 1, there, known, score, _pixel(place, ground))
            sums.left_out += int((~known & (mask != NO_DATA)).sum())
            errors.write(error_codes(mask == 1, there, known), 1, window=window)
            steps.update(1)
    return sums


def _pixel(place: Rect, ground: Ground) -> float:
    """Square metres of a pixel of a tile, on the ellipsoid; NaN without a CRS."""
    corners = [(place.left, place.top), (place.right, place.top), (place.right, place.bottom),
               (place.left, place.bottom)]  # fmt: skip
    shape = library("shapely").Polygon([ground.transform @ corner for corner in corners])
    crs = None if ground.crs is None else ground.crs.to_wkt()
    return float(square_metres(np.asarray([shape], object), crs)[0] / (place.height * place.width))


def _pixels(counts: Counts, left_out: int) -> dict[str, int]:
    both, false, missed, neither = map(int, counts.squares.sum(0))
    compared = both + false + missed + neither
    kinds = {"both": both, "false": false, "missed": missed, "neither": neither}
    return {"compared": compared, **kinds, "left_out": left_out}


def _areas(sums: _Sums, ground: Ground) -> dict[str, float] | None:
    if ground.crs is None:
        return None
    return {"map": round(float(sums.metres[0]), 3), "truth": round(float(sums.metres[1]), 3)}


def _objects(
    folder: Path, truth: Truth, area: Area | None, ground: Ground
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Layers of what was missed and of what is false, and the counts; none where either has no objects."""
    if not isinstance(truth, PolygonTruth) or not (folder / FILES["gpkg"]).is_file():
        return {}, None
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
    at = ground.transform
    missed = shapely.transform(
        truth.shapes[own[lost]],
        lambda x, y: (at.a * x + at.b * y + at.c, at.d * x + at.e * y + at.f),
        interleaved=False,
    )
    layers = {
        "missed": geopandas.GeoDataFrame(
            {"shape": truth.numbers[own[lost]], "closest_iou": same.closest_truth[lost].round(4)},
            geometry=missed,
            crs=frame.crs,
        ),
        "false": frame.iloc[found[false]][["id", "score_mean", frame.geometry.name]].assign(
            closest_iou=same.closest_found[false].round(4)
        ),
    }
    return layers, same.told() | {"left_out": int((~truth.compared).sum())}


def _cut(shapes: NDArray[np.object_], zone: Any) -> tuple[NDArray[np.int64], NDArray[np.object_]]:
    """Shapes as far as they lie in what is compared, and their places; no slivers."""
    shapely = library("shapely")
    cut = shapely.intersection(shapes, zone)
    kept = np.flatnonzero(shapely.area(cut) >= _SLIVER)
    return kept, cut[kept]


def _warnings(
    truth: Truth, area: Area | None, ground: Ground, about: dict[str, Any], sums: _Sums, counts: Counts
) -> list[str]:
    told = []
    if isinstance(truth, PolygonTruth) and not (Path(ground.path) / FILES["gpkg"]).is_file():
        told.append("the map has no objects.gpkg, so objects were not compared: map with --format gpkg")
    if truth.ignored:
        told.append(f"{truth.ignored} shapes of the truth are no polygons and were left out")
    compared = int(counts.squares.sum())
    if isinstance(truth, PolygonTruth) and area is None:
        left, top, right, bottom = truth.bounds
        across = min(right, ground.width) - max(left, 0)
        share = across * (min(bottom, ground.height) - max(top, 0)) / compared
        if share < _PART:
            told.append(
                f"all polygons of the truth lie in {share:.0%} of what was compared, and everything the map "
                "found elsewhere counts as false: if they were drawn for a part alone, give it as --aoi"
            )
    if about["prompts"]:
        told.append(
            "the map was asked by prompts: what lies in no prompt's window is left out, and so are objects "
            "that nobody pointed at"
        )
    elif sums.left_out > compared:
        told.append(f"{sums.left_out:,} pixels were left out, more than the {compared:,} compared")
    return told
