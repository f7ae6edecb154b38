"""What a vector file may be before GDAL opens it."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.storage.libraries import library

#: Suffixes of GeoParquet, which pyogrio's wheels do not read.
PARQUET = (".parquet", ".geoparquet")
#: Written in files that hold no geometries: GDAL would read the files and servers that they name (its VRT),
#: or run the commands (its pipelines), whatever the file's suffix.
_POINTERS = (b"<OGRVRTDataSource", b"gdal_streamed_alg")
_HEAD = 64 * 1024


def points_elsewhere(source: Path | bytes) -> bool:
    """Whether a file, or one in a zip, has no geometries of its own, but names what GDAL is to read or run.

    Raises:
        Exception: of many kinds where a file, or one in the zip, cannot be read. GDAL might yet be able to.
    """
    return any(pointer in head for head in _heads(source) for pointer in _POINTERS)


def _heads(source: Path | bytes) -> Iterator[bytes]:
    """How a file begins, and every file of a zip."""
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
        yield file.read(_HEAD)
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                for name in archive.namelist():
                    with archive.open(name) as member:
                        yield member.read(_HEAD)


def layers_of(source: Path | bytes) -> list[str]:
    """Names of the layers with geometries; tables without, such as QGIS's styles, are none."""
    return [str(name) for name, kind in library("pyogrio").list_layers(source) if kind is not None]


def text_of(value: Any) -> str:
    """A field's value as a name: whole numbers without a point, nothing as such."""
    if value is None or value != value:  # None, or no number
        return "no value"
    whole = isinstance(value, float | np.floating) and float(value).is_integer()
    return str(int(value)) if whole else str(value)
