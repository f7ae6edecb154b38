"""A raster file at another resolution, with another value for what is no data."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.windows import Window as FileWindow

from pipelines.pictures.errors import damage
from pipelines.pictures.rasters import ALL, FileRaster, Grid, Source, read_settings


class MapRaster(FileRaster):
    """A file whose rows may be those of another resolution.

    Coarser rows are means of the pixels that they cover, finer ones are interpolated (bilinear); what is no
    data counts for nothing. A part gives the same values as often as it is read.

    Args:
        source: the file.
        where: its name, for messages.
        kind: GDAL's name of its format, where it is not told by its first bytes.
        nodata: instead of the file's own value.
    """

    def __init__(self, source: Source, where: str, kind: str | None, nodata: float | None) -> None:
        super().__init__(source, "image", where, kind)
        self.kind = "GTiff" if kind == "VRT" else self.kind  # whose rules for no data it follows
        self._own_nodata = nodata
        self.native = (self.height, self.width)

    @property
    def nodata(self) -> float | None:
        """See :class:`~pipelines.pictures.rasters.FileRaster`."""
        return super().nodata if self._own_nodata is None else self._own_nodata

    def resize(self, height: int, width: int) -> None:
        """Rows are those of a raster of this size from now on."""
        self.height, self.width = height, width

    @property
    def _scaled(self) -> bool:
        return (self.height, self.width) != self.native

    def read(self, bands: tuple[int, ...], start: int, stop: int, columns: slice = ALL) -> Grid:
        """``[bands, stop - start, W]``."""
        if not self._scaled:
            return super().read(bands, start, stop, columns)
        left, right, _ = columns.indices(self.width)
        shape = (len(bands), stop - start, right - left)
        return self._scaled_read(lambda **how: self.data.read(list(bands), **how), start, left, shape)

    def read_mask(self, start: int, stop: int, columns: slice = ALL) -> NDArray[np.bool_]:
        """Valid pixels by the file's own mask, bool ``[stop - start, W]``."""
        if not self._scaled:
            return super().read_mask(start, stop, columns)
        left, right, _ = columns.indices(self.width)
        shape = (stop - start, right - left)
        nearest = Resampling.nearest
        found = self._scaled_read(
            lambda **how: self.data.dataset_mask(**{**how, "resampling": nearest}), start, left, shape
        )
        return np.asarray(found != 0)

    def _scaled_read(self, read: Any, top: int, left: int, shape: tuple[int, ...]) -> Grid:
        down, across = self.native[0] / self.height, self.native[1] / self.width
        window = FileWindow(left * across, top * down, shape[-1] * across, shape[-2] * down)
        how = Resampling.average if down * across > 1 else Resampling.bilinear
        with damage(self.where, "image"), read_settings():
            return np.asarray(read(window=window, out_shape=shape, resampling=how))
