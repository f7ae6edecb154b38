"""``mask.tif`` and ``score.tif``: cloud-optimised GeoTIFFs of the finished parts."""

from pathlib import Path

import numpy as np
import rasterio
import rasterio.errors
import rasterio.shutil
import rasterio.windows

from pipelines.maps.blend import NO_DATA, NOT_COMPUTED, Mask
from pipelines.maps.grid import Grid, Rect
from pipelines.maps.scene import Scene
from pipelines.maps.work import Work
from unigeoseg.errors import UserError

MASK, SCORE = "mask.tif", "score.tif"
_TILE = 512
_CACHE_MB = 64


def write_rasters(work: Work, grid: Grid, scene: Scene, folder: Path) -> None:
    """Writes both files; what no part covers is 254.

    Each is put together beside its place block by block, then copied once: memory does not follow the raster.

    Args:
        work: with the finished parts.
        grid: of the raster.
        scene: where it lies.
        folder: of the map.

    Raises:
        UserError: they cannot be written.
    """
    drafts = [folder / f"{name}.draft" for name in (MASK, SCORE)]
    try:
        with rasterio.Env(GDAL_CACHEMAX=_CACHE_MB):
            _draft(work, grid, scene, drafts)
            for draft, name in zip(drafts, (MASK, SCORE), strict=True):
                rasterio.shutil.copy(
                    str(draft),
                    str(folder / f"{name}.part"),
                    driver="COG",
                    COMPRESS="DEFLATE",
                    BLOCKSIZE=_TILE,
                    OVERVIEW_RESAMPLING="NEAREST",
                    BIGTIFF="IF_SAFER",
                )
                (folder / f"{name}.part").replace(folder / name)
    except (OSError, rasterio.errors.RasterioError) as error:
        raise UserError(
            f"{folder}: the rasters cannot be written ({error}): make room and give the same command with "
            "--resume"
        ) from error
    finally:
        for draft in drafts:
            draft.unlink(missing_ok=True)


def _draft(work: Work, grid: Grid, scene: Scene, drafts: list[Path]) -> None:
    profile = {
        "driver": "GTiff",
        "height": grid.height,
        "width": grid.width,
        "count": 1,
        "dtype": "uint8",
        "nodata": NO_DATA,
        "tiled": True,
        "blockxsize": _TILE,
        "blockysize": _TILE,
        "compress": "deflate",
        "zlevel": 1,
        "bigtiff": "if_safer",
    }
    if scene.place is not None:
        profile |= {"crs": scene.crs, "transform": scene.transform}
    with rasterio.open(drafts[0], "w", **profile) as mask, rasterio.open(drafts[1], "w", **profile) as score:
        for place in strips(grid):
            for file, values in zip((mask, score), merged(work, place), strict=True):
                window = rasterio.windows.Window(place.left, place.top, place.width, place.height)
                file.write(values, 1, window=window)


def strips(grid: Grid) -> list[Rect]:
    """The raster in squares of whole tiles, so that no tile is written twice."""
    side = _TILE * max(1, grid.strides * grid.stride // _TILE)
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
