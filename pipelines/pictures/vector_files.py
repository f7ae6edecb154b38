"""What a vector file may be before GDAL opens it."""

from pathlib import Path

#: Written in files that hold no geometries: GDAL would read the files and servers that they name (its VRT),
#: or run the commands (its pipelines), whatever the file's suffix.
_POINTERS = (b"<OGRVRTDataSource", b"gdal_streamed_alg")
_HEAD = 64 * 1024


def points_elsewhere(source: Path | bytes) -> bool:
    """Whether a file has no geometries of its own, but names what GDAL is to read or run.

    Raises:
        OSError: it cannot be read.
    """
    if isinstance(source, bytes):
        head = source[:_HEAD]
    else:
        with source.open("rb") as file:
            head = file.read(_HEAD)
    return any(pointer in head for pointer in _POINTERS)
