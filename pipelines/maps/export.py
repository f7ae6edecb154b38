"""The objects of a finished map in other formats."""

import json
from pathlib import Path
from typing import Any

from rasterio.transform import Affine

from pipelines.maps.documents import finished
from pipelines.maps.vectors import FILES, LAYER, MOST_GEOJSON, write_frames
from pipelines.storage.libraries import check_libraries, library
from unigeoseg.errors import UserError

_AT_ONCE = 10_000


def export_map(
    map_folder: str | Path, out: str | Path, formats: tuple[str, ...], simplify: float, crs: str | None
) -> dict[str, Any]:
    """Writes the objects of a map again.

    Args:
        map_folder: of one raster's map, with ``map.json`` and ``objects.gpkg``.
        out: folder.
        formats: gpkg, parquet, geojson.
        simplify: tolerance of outlines in pixels; taken before anything is reprojected.
        crs: to put them in; ``None``: the raster's.

    Returns:
        ``{"objects", "crs", "outputs"}``.

    Raises:
        UserError: there is no such map, or it cannot be written so.
    """
    check_libraries()
    pyogrio, rasterio = library("pyogrio"), library("rasterio")
    folder, target = Path(map_folder), Path(out)
    about = finished(folder)
    source = folder / FILES["gpkg"]
    if not source.is_file():
        raise UserError(
            f"{source} is missing: map with --format gpkg; with several inputs give the folder of one"
        )
    if target.resolve() == folder.resolve() and "gpkg" in formats:
        raise UserError(
            f"--out {target} is the map itself, whose objects.gpkg would be replaced: choose another"
        )
    if "geojson" in formats and about["objects"] > MOST_GEOJSON:
        raise UserError(
            f"{about['objects']:,} objects: GeoJSON takes up to {MOST_GEOJSON:,}; choose parquet or gpkg"
        )
    if crs is not None and about["crs"] is None:
        raise UserError(f"{folder} is in pixels: --crs {crs} has nothing to start from")
    with rasterio.open(folder / "mask.tif") as mask:
        transform = mask.transform

    def frames() -> Any:
        for start in range(0, max(about["objects"], 1), _AT_ONCE):
            frame = pyogrio.read_dataframe(source, layer=LAYER, skip_features=start, max_features=_AT_ONCE)
            if simplify > 0:
                frame = frame.set_geometry(_simplified(frame.geometry, transform, simplify))
            yield frame if crs is None else frame.to_crs(crs)

    target.mkdir(parents=True, exist_ok=True)
    kind = "MultiPolygon" if about["prompts"] else "Polygon"
    date = json.loads((_asked(folder)).read_text(encoding="utf-8"))["date"]
    written = {name: write_frames(frames(), target, name, kind, date) for name in formats}
    return {"objects": about["objects"], "crs": crs or about["crs"], "outputs": written}


def _asked(folder: Path) -> Path:
    """Of a map of one raster, or of several one folder up."""
    own = folder / "request.json"
    return own if own.is_file() else folder.parent / "request.json"


def _simplified(shapes: Any, transform: Affine, tolerance: float) -> Any:
    """Simplified in pixels, so that the tolerance means the same in every CRS."""
    back = ~transform
    pixels = shapes.affine_transform([back.a, back.b, back.d, back.e, back.c, back.f])
    at = transform
    return pixels.simplify(tolerance).affine_transform([at.a, at.b, at.d, at.e, at.c, at.f])
