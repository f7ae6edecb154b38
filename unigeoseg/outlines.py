"""Masks as polygons along pixel edges."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def mask_polygons(mask: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """GeoJSON polygons, one a 4-connected region, holes inside; coordinates are pixel corners (x, y).

    By GDAL's polygonizer. With 8-connected regions rings would cross themselves where corners meet.

    Args:
        mask: bool ``[H, W]``.
    """
    from rasterio.features import shapes
    from rasterio.transform import IDENTITY

    area = mask.astype(np.uint8)
    return [shape for shape, _ in shapes(area, mask=mask, connectivity=4, transform=IDENTITY)]
