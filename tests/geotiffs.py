"""GeoTIFFs of all kinds for tests, written with rasterio alone."""

from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import Affine

UTM = "EPSG:32633"
#: Half a metre a pixel, north up.
AT = Affine(0.5, 0, 400000, 0, -0.5, 5600000)


def scene(height, width, seed=0, bands=3, dtype=np.uint8):
    """Smooth blobs with some noise: something that a model answers to unevenly."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    planes = []
    for _ in range(bands):
        value = np.zeros((height, width))
        for _ in range(6):
            a, b, phase = (*rng.uniform(0.01, 0.25, 2), rng.uniform(0, 6))
            value += np.sin(a * x + b * y + phase) * rng.uniform(0.3, 1)
        planes.append(value)
    values = np.stack(planes)
    values = (values - values.min()) / np.ptp(values) + rng.normal(0, 0.05, values.shape)
    full = 255 if dtype == np.uint8 else 3000
    return np.clip(values * full, 0, full).astype(dtype)


def write(path, bands, crs=UTM, transform=AT, mask=None, **options):
    """Bands ``[C, H, W]`` as a GeoTIFF; ``mask`` is written inside it."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    count, height, width = bands.shape
    known = {"crs": crs, "transform": transform} if transform is not None else {"crs": crs}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            path,
            "w",
            driver="GTiff",
            height=height,
            width=width,
            count=count,
            dtype=bands.dtype,
            **known,
            **options,
        ) as file,
    ):
        file.write(bands)
        if mask is not None:
            file.write_mask(mask)
    return str(path)
