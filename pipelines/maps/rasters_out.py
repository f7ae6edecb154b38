"""``mask.tif`` and ``score.tif``: cloud-optimised GeoTIFFs of the finished parts."""

from pathlib import Path

import numpy as np
import rasterio
import rasterio.errors
import rasterio.windows

from pipelines.maps.blend import NOT_COMPUTED, Mask
from pipelines.maps.cog import TILE, cog
from pipelines.maps.grid import Grid, Rect
from pipelines.maps.scene import Scene
from pipelines.maps.work import Work
from unigeoseg.errors import UserError

MASK, SCORE = "mask.tif", "score.tif"
_CACHE_MB = 64


def write_rasters(work: Work, grid: Grid, scene: Scene, folder: Path) -> None:
    """Writes both files; what no part covers is 254.

    Args:
        work: with the finished parts.
        grid: of the raster.
        scene: where it lies.
        folder: of the map.

    Raises:
        UserError: they cannot be written.
    """
    size = (grid.height, grid.width)
    at = (scene.crs, scene.transform)
    try:
        with (
            rasterio.Env(GDAL_CACHEMAX=_CACHE_MB),
            cog(folder / MASK, size, *at) as mask,
            cog(folder / SCORE, size, *at) as score,
        ):
            for place in strips(grid):
                window = rasterio.windows.Window(place.left, place.top, place.width, place.height)
                for file, values in zip((mask, score), merged(work, place), strict=True):
                    file.write(values, 1, window=window)
    except (OSError, rasterio.errors.RasterioError) as error:
        raise UserError(
            f"{folder}: the rasters cannot be written ({error}): make room and give the same command with "
            "--resume"
        ) from error


def strips(grid: Grid) -> list[Rect]:
    """The raster in squares of whole tiles, so that no tile is written twice."""
    side = TILE * max(1, grid.strides * grid.stride // TILE)
    return [
        Rect(top, left, top + side, left + side).cut(grid.whole)
        for top in range(0, grid.height, side)
        for left in range(0, grid.width, side)
    ]


def merged(work: Work, place: Rect) -> tuple[Mask, Mask]:
    """Mask and score of a part of the raster from all parts that reach into it.

    Blocks do not overlap. Windows of prompts do: a pixel is foreground where it is in one of them, and has
    the largest of their scores.
    """
    mask = np.full((place.height, place.width), NOT_COMPUTED, np.uint8)
    score = mask.copy()
    for rect, own_mask, own_score in work.reaching(place):
        part = rect.cut(place)
        for values, own in ((mask, own_mask), (score, own_score)):
            there = values[part.inside(place)]
            new = own[part.inside(rect)]
            known = new < NOT_COMPUTED
            old = there < NOT_COMPUTED
            there[:] = np.where(known & old, np.maximum(new, there), np.where(old, there, new))
    return mask, score
