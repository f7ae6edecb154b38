"""What a vector file may be before GDAL opens it."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

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
