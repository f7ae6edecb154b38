"""What an assessment leaves to look at: where a map is wrong, as a raster, as layers, as a picture."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch
from numpy.typing import NDArray

from pipelines.evaluate.plots import new_figure, save
from pipelines.maps.blend import NO_DATA
from pipelines.maps.cog import TILE, cog
from pipelines.maps.grid import Rect
from pipelines.storage.libraries import library

ERRORS, OBJECTS, PICTURE = "errors.tif", "errors.gpkg", "assessment.png"
#: Values of ``errors.tif``, beside 255 for what was not compared, with their colours.
_KINDS = {
    0: ("neither", "#f2f2f2"),
    1: ("found and there", "#2a9d5c"),
    2: ("found, not there", "#c1443c"),
    3: ("there, not found", "#e6b11e"),
    NO_DATA: ("not compared", "#b8b8b8"),
}
#: Pixels of the picture's longer side.
_SIDE = 900


def error_codes(
    found: NDArray[np.bool_], there: NDArray[np.bool_], known: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """Values of ``errors.tif``, uint8 ``[h, w]``.

    Args:
        found: where the map found it, bool ``[h, w]``.
        there: where it is.
        known: where both are known.
    """
    codes = np.array([0, 2, 3, 1], np.uint8)[found.astype(np.uint8) + 2 * there.astype(np.uint8)]
    codes[~known] = NO_DATA
    return codes


def tiles(height: int, width: int) -> list[Rect]:
    """A raster's tiles, row by row."""
    whole = Rect(0, 0, height, width)
    return [
        Rect(top, left, top + TILE, left + TILE).cut(whole)
        for top in range(0, height, TILE)
        for left in range(0, width, TILE)
    ]


def error_raster(like: Any, folder: Path) -> AbstractContextManager[Any]:
    """The rasterio file that becomes ``errors.tif``, with colours, when all went well.

    Args:
        like: the map's mask, opened.
        folder: for it.
    """
    colours = {value: _bytes(colour) for value, (_, colour) in _KINDS.items()}
    return cog(folder / ERRORS, (like.height, like.width), like.crs, like.transform, colours)


def _bytes(colour: str) -> tuple[int, ...]:
    return (*(round(255 * part) for part in to_rgb(colour)), 255)


def write_error_objects(layers: Mapping[str, Any], folder: Path) -> None:
    """``errors.gpkg``: a layer for each kind of error.

    Args:
        layers: GeoDataFrames by the names of their layers.
        folder: for it.
    """
    for number, (name, frame) in enumerate(layers.items()):
        library("pyogrio").write_dataframe(
            frame, folder / OBJECTS, layer=name, driver="GPKG", geometry_type="MultiPolygon",
            promote_to_multi=True, append=number > 0,
        )  # fmt: skip


def draw_assessment(told: Mapping[str, Any], folder: Path) -> None:
    """``assessment.png``: where the map is wrong, and what other thresholds would give.

    Args:
        told: content of ``assessment.json``.
        folder: with ``errors.tif``.
    """
    with rasterio.open(folder / ERRORS) as file:
        scale = min(1.0, _SIDE / max(file.height, file.width))
        codes = file.read(1, out_shape=(round(file.height * scale) or 1, round(file.width * scale) or 1))
    drawn = np.zeros((*codes.shape, 3), np.uint8)
    for value, (_, colour) in _KINDS.items():
        drawn[codes == value] = _bytes(colour)[:3]
    figure = new_figure(13, 6)
    where, curve = figure.subplots(1, 2, width_ratios=(1.3, 1))
    where.imshow(drawn, interpolation="nearest")
    where.set_axis_off()
    handles = [Patch(facecolor=colour, edgecolor="#888888", label=name) for name, colour in _KINDS.values()]
    where.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.01), ncols=3, frameon=False)
    where.set_title(_title(told))
    if told["thresholds"] is None:
        curve.set_axis_off()
    else:
        rows = told["thresholds"]["curve"]
        for name, colour in (("IoU", "#1f77b4"), ("precision", "#c1443c"), ("recall", "#e6b11e")):
            curve.plot([r["threshold"] for r in rows], [r[name] for r in rows], color=colour, label=name)
        if told["threshold"] is not None:
            curve.axvline(told["threshold"], color="#4d4d4d", linestyle=":", label="the map's threshold")
        curve.set(xlabel="threshold on score.tif", xlim=(0, 1), ylim=(0, 1), title="other thresholds")
        curve.grid(alpha=0.3)
        curve.legend()
    save(figure, folder / PICTURE)


def _title(told: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {told[name]:.2f}" for name in ("IoU", "precision", "recall") if told[name] is not None
    )
