"""Cloud-optimised GeoTIFFs of one byte a pixel, written part by part."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rasterio
import rasterio.shutil
from rasterio.transform import Affine

from pipelines.maps.blend import NO_DATA

#: Side of a tile.
TILE = 512


@contextmanager
def cog(
    path: Path,
    size: tuple[int, int],
    crs: Any,
    transform: Affine,
    colours: Mapping[int, tuple[int, ...]] | None = None,
) -> Iterator[Any]:
    """The rasterio file that becomes a COG when all went well.

    It is put together beside its place tile by tile, then copied once: memory does not follow the raster.

    Args:
        path: of the COG.
        size: height and width.
        crs: rasterio's; ``None``: pixel units.
        transform: from pixels to coordinates.
        colours: red, green, blue, alpha of values.

    Raises:
        OSError, rasterio.errors.RasterioError: it cannot be written.
    """
    draft, part = (path.with_name(f"{path.name}.{end}") for end in ("draft", "part"))
    profile = {
        "driver": "GTiff",
        "height": size[0],
        "width": size[1],
        "count": 1,
        "dtype": "uint8",
        "nodata": NO_DATA,
        "tiled": True,
        "blockxsize": TILE,
        "blockysize": TILE,
        "compress": "deflate",
        "zlevel": 1,
        "bigtiff": "if_safer",
    }
    if crs is not None:
        profile |= {"crs": crs, "transform": transform}
    try:
        with rasterio.open(draft, "w", **profile) as file:
            if colours is not None:
                file.write_colormap(1, dict(colours))
            yield file
        rasterio.shutil.copy(
            str(draft),
            str(part),
            driver="COG",
            COMPRESS="DEFLATE",
            BLOCKSIZE=TILE,
            OVERVIEW_RESAMPLING="NEAREST",
            BIGTIFF="IF_SAFER",
        )
        part.replace(path)
    finally:
        draft.unlink(missing_ok=True)
        part.unlink(missing_ok=True)
