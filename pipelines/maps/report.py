"""``report.html`` of a map: what was made, and how it looks over the picture."""

import base64
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rasterio
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray

from pipelines.evaluate.drawing import PREDICTION, overlay
from pipelines.maps.blend import NO_DATA, NOT_COMPUTED
from pipelines.maps.grid import Rect
from pipelines.maps.rasters_out import MASK
from pipelines.maps.scene import Scene

REPORT = "report.html"
#: Pixels of the picture's longer side, and rows that are read at once for it.
_SIDE, _ROWS = 1200, 256
#: Grey of what was not computed, and of what holds no data.
_GREY, _PALE = (70, 70, 70), (235, 235, 235)
#: How much of the picture they cover.
_VEIL = 0.6


def write_report(result: dict[str, Any], scene: Scene, folder: Path) -> None:
    """Writes the page.

    Args:
        result: of the map.
        scene: the raster.
        folder: of the map, with its mask.
    """
    environment = Environment(
        loader=PackageLoader("pipelines.maps", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    done, data = cv2.imencode(".jpg", _drawn(scene, folder)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
    assert done
    page = environment.get_template("report.html.j2").render(
        result=result, picture=base64.b64encode(data.tobytes()).decode("ascii")
    )
    (folder / REPORT).write_text(page, encoding="utf-8")


def _drawn(scene: Scene, folder: Path) -> NDArray[np.uint8]:
    """The raster, small, with its mask."""
    scale = min(1.0, _SIDE / max(scene.height, scene.width))
    height, width = max(1, round(scene.height * scale)), max(1, round(scene.width * scale))
    picture = _small(scene, height, width)
    with rasterio.open(folder / MASK) as file:
        mask = file.read(1, out_shape=(height, width))
    drawn = overlay(picture, mask == 1, PREDICTION)
    for value, veil in ((NOT_COMPUTED, _GREY), (NO_DATA, _PALE)):
        there = mask == value
        drawn[there] = (drawn[there] * (1 - _VEIL) + np.asarray(veil) * _VEIL).astype(np.uint8)
    return drawn


def _small(scene: Scene, height: int, width: int) -> NDArray[np.uint8]:
    """Every n-th row and column: read strip by strip, so that memory does not follow the raster's height."""
    rows = np.minimum((np.arange(height) + 0.5) * scene.height / height, scene.height - 1).astype(np.int64)
    columns = np.minimum((np.arange(width) + 0.5) * scene.width / width, scene.width - 1).astype(np.int64)
    if scene.file is not None and scene.height * scene.width > 4 * _SIDE * _SIDE:
        return _overview(scene, height, width)
    found = np.empty((height, width, 3), np.uint8)
    for top in range(0, scene.height, _ROWS):
        wanted = (rows >= top) & (rows < top + _ROWS)
        if wanted.any():
            part = Rect(top, 0, min(top + _ROWS, scene.height), scene.width)
            found[wanted] = scene.read(part)[0][rows[wanted] - top][:, columns]
    return found


def _overview(scene: Scene, height: int, width: int) -> NDArray[np.uint8]:
    """Of a large raster, by the file's own overviews."""
    file = scene.file
    assert file is not None
    before = (file.height, file.width)
    file.resize(height, width)
    try:
        small = Rect(0, 0, height, width)
        raster = scene.raster
        raster.height, raster.width = height, width
        return np.ascontiguousarray(raster.rows(small.top, small.bottom, small.columns))
    finally:
        file.resize(*before)
        scene.raster.height, scene.raster.width = before
