"""Where a picture lies on the Earth, and masks written there."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.io import MemoryFile
from rasterio.transform import Affine

from pipelines.pictures.picture import Picture
from pipelines.pictures.turn import SOUTH_UP, UPRIGHT
from pipelines.storage.libraries import library


@dataclass(frozen=True)
class Georeference:
    """Coordinates of a picture's pixels.

    Attributes:
        crs: rasterio's, of the coordinates.
        transform: from (column, row) of pixel corners of the upright picture to coordinates.
    """

    crs: Any
    transform: Affine


def georeference_of(picture: Picture) -> Georeference | None:
    """Where an opened picture lies; ``None`` without a CRS or where it was turned by EXIF."""
    if picture.file is None or picture.file.data.crs is None or picture.turn not in (UPRIGHT, SOUTH_UP):
        return None
    at = picture.file.data.transform
    if at.is_identity:
        return None
    if picture.turn == SOUTH_UP:
        at = at @ Affine(1, 0, 0, 0, -1, picture.file.height)
    return Georeference(picture.file.data.crs, at)


def on_pixels(frame: Any, crs: Any, transform: Affine) -> NDArray[np.object_]:
    """Geometries in pixels (x right, y down), reprojected where their CRS is another.

    Args:
        frame: a GeoDataFrame.
        crs: rasterio's, of the picture; ``None``: the geometries are taken to be in its coordinates.
        transform: from pixel corners of the picture to its coordinates.
    """
    if crs is not None:
        frame = frame.to_crs(crs.to_wkt())
    return moved(np.asarray(frame.geometry.values, object), ~transform)


def moved(shapes: NDArray[np.object_], by: Affine) -> NDArray[np.object_]:
    """Geometries whose corners (x, y) went through an affine map, such as from pixels to coordinates."""
    found = library("shapely").transform(
        shapes, lambda x, y: (by.a * x + by.b * y + by.c, by.d * x + by.e * y + by.f), interleaved=False
    )
    return np.asarray(found, object)


def mask_tiff(mask: NDArray[np.bool_], place: Georeference) -> bytes:
    """A mask bool ``[H, W]`` as a GeoTIFF of 0 and 1 that lies where its picture does."""
    height, width = mask.shape
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff",
            height=height,
            width=width,
            count=1,
            dtype="uint8",
            crs=place.crs,
            transform=place.transform,
            compress="deflate",
            tiled=True,
            blockxsize=256,
            blockysize=256,
        ) as file:
            file.write(mask.astype(np.uint8), 1)
        return bytes(memory.getbuffer())
