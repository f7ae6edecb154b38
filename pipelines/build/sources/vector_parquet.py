"""GeoParquet as the other vector files are told and read: pyogrio's wheels come without GDAL's driver for it.

The format is the specification's, https://geoparquet.org/releases/v1.1.0.
"""

import io
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.storage.libraries import library

#: What coordinates are in where a file says nothing of it: degrees, longitude first.
_UNSAID = "OGC:CRS84"


def about_parquet(source: str | bytes) -> dict[str, Any]:
    """What ``pyogrio.read_info`` tells of a layer of another file.

    Args:
        source: a path, or the file's bytes.

    Returns:
        ``fields``, the columns that may tell a class; ``features``, how many; ``crs``, as WKT, ``None`` where
        the file says that it is not known.

    Raises:
        ValueError: the table has no geometries.
        pyarrow.ArrowException, OSError: it cannot be read.
    """
    file = pq.ParquetFile(_opened(source))
    geo = _geo(file.schema_arrow)
    crs = geo["columns"][geo["primary_column"]].get("crs", _UNSAID)
    return {
        "fields": [
            field.name
            for field in file.schema_arrow
            if field.name not in geo["columns"] and not pa.types.is_nested(field.type)
        ],
        "features": file.metadata.num_rows,
        "crs": None if crs is None else library("pyproj").CRS.from_user_input(crs).to_wkt(),
    }


def read_parquet(source: str | bytes, attribute: str | None) -> Any:
    """A GeoDataFrame of all geometries and one column, by the numbers of the rows.

    A geometry that is none is ``None``: that object's fault alone.

    Args:
        source: a path, or the file's bytes.
        attribute: the column; ``None``: none.

    Raises:
        ValueError: the table has no geometries.
        pyarrow.ArrowException, OSError: it cannot be read.
    """
    geopandas = library("geopandas")
    geo = _geo(pq.read_schema(_opened(source)))
    name = geo["primary_column"]
    columns = [name] if attribute is None else [name, attribute]
    if geo["columns"][name].get("encoding") != "WKB":
        return geopandas.read_parquet(_opened(source), columns=columns).reset_index(drop=True)
    table = pq.read_table(_opened(source), columns=columns)
    content = table.select(columns[1:]).to_pandas(ignore_metadata=True)
    binary = np.asarray(table.column(name).to_pylist(), object)
    shapes = library("shapely").from_wkb(binary, on_invalid="ignore")
    crs = geo["columns"][name].get("crs", _UNSAID)
    return geopandas.GeoDataFrame(content, geometry=shapes, crs=crs)


def _opened(source: str | bytes) -> Any:
    return io.BytesIO(source) if isinstance(source, bytes) else source


def _geo(schema: pa.Schema) -> dict[str, Any]:
    """What the specification keeps in the key ``geo`` of the file."""
    told = (schema.metadata or {}).get(b"geo")
    if told is None:
        raise ValueError("the table has no geometries (no metadata of GeoParquet)")
    geo: dict[str, Any] = json.loads(told)
    return geo
