"""A finished map over its raster."""

import json
import threading
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.windows import Window

from pipelines.maps.blend import NO_DATA, NOT_COMPUTED
from pipelines.maps.documents import MAP
from pipelines.maps.grid import Rect
from pipelines.maps.rasters_out import MASK
from pipelines.maps.vectors import FILES, LAYER
from pipelines.pictures.errors import damage
from pipelines.pictures.rasters import read_settings
from pipelines.pictures.remote import where_is
from pipelines.storage.libraries import library
from pipelines.web.images import Images
from pipelines.web.pyramid import TILE, Pyramid
from unigeoseg.errors import UserError

#: Colours RGBA of a tile: found, not computed, no data.
_FOUND, _GREY, _PALE = (242, 120, 12, 255), (70, 70, 70, 200), (235, 235, 235, 200)
#: Objects that are listed, and of a page.
_MOST, PAGE = 200_000, 50
_COLUMNS = ["id", "instruction", "score_mean", "area_m2", "area_px", "cut"]


class UnknownMap(LookupError):
    """There is no map of this number."""


class MapView:
    """The map of one raster.

    Args:
        folder: of the map.
        told: the content of its ``map.json``.
        images: where its raster becomes known.
    """

    def __init__(self, folder: Path, told: dict[str, Any], images: Images) -> None:
        self.folder, self.told = folder, told
        where = where_is(told["input"])
        name = Path(told["input"]).name
        self.image = images.add("map", name, lambda: Pyramid.open(where, name))
        self._lock = threading.Lock()
        with damage(str(folder / MASK), "mask"):
            self._mask = rasterio.open(folder / MASK, driver="GTiff")
        self.height, self.width = int(self._mask.height), int(self._mask.width)

    def describe(self) -> dict[str, Any]:
        """What there is to know of it."""
        kept = (
            "input",
            "instruction",
            "task",
            "prompts",
            "objects",
            "model",
            "crs",
            "gsd",
            "failed",
            "warnings",
        )
        depth = 1
        while max(self.width, self.height) > TILE << (depth - 1):
            depth += 1
        size = {"width": self.width, "height": self.height, "levels": depth, "tile": TILE}
        return {"image": self.image, "mask": size, **{key: self.told.get(key) for key in kept}}

    def tile(self, level: int, row: int, column: int) -> NDArray[np.uint8] | None:
        """A tile of the mask, RGBA ``[h, w, 4]``, clear where nothing was found; ``None``: there is none."""
        side = TILE << level if 0 <= level < 32 else 0
        part = Rect(row * side, column * side, (row + 1) * side, (column + 1) * side)
        part = part.cut(Rect(0, 0, self.height, self.width))
        if row < 0 or column < 0 or part.height <= 0 or part.width <= 0:
            return None
        shape = (-(-part.height // (1 << level)), -(-part.width // (1 << level)))
        window = Window(part.left, part.top, part.width, part.height)
        with self._lock, damage(str(self.folder / MASK), "mask"), read_settings():
            values = self._mask.read(1, window=window, out_shape=shape, resampling=Resampling.nearest)
        colours = np.zeros((256, 4), np.uint8)
        colours[1], colours[NOT_COMPUTED], colours[NO_DATA] = _FOUND, _GREY, _PALE
        return np.asarray(colours[values])

    def objects(self, order: str, page: int) -> dict[str, Any]:
        """Objects, a page at a time, each with the part of the raster that it fills.

        Args:
            order: "area" or "score".
            page: from 0.
        """
        frame, bounds = self._objects
        if frame is None:
            return {"n": 0, "page": 0, "pages": 0, "objects": []}
        ranks = np.argsort(-frame["area_px" if order == "area" else "score_mean"].to_numpy(), kind="stable")
        chosen = ranks[page * PAGE : (page + 1) * PAGE]
        rows = frame.iloc[chosen].to_dict("records")
        found = [
            {
                key: None if isinstance(value, float) and not np.isfinite(value) else value
                for key, value in row.items()
            }
            for row in rows
        ]
        for row, box in zip(found, bounds[chosen].tolist(), strict=True):
            row["window"] = box
        return {"n": len(ranks), "page": page, "pages": -(-len(ranks) // PAGE), "objects": found}

    @cached_property
    def _objects(self) -> tuple[Any, NDArray[np.float64]]:
        """All objects without their outlines, and their bounds in pixels of the mask."""
        path = self.folder / FILES["gpkg"]
        if not path.is_file():
            return None, np.zeros((0, 4))
        pyogrio = library("pyogrio")
        how = {"layer": LAYER, "max_features": _MOST}
        frame = pyogrio.read_dataframe(path, columns=_COLUMNS, read_geometry=False, **how)
        if not len(frame):
            return None, np.zeros((0, 4))
        x0, y0, x1, y1 = pyogrio.read_bounds(path, **how)[1]
        back = ~self._mask.transform
        corners = [
            (back.a * x + back.b * y + back.c, back.d * x + back.e * y + back.f)
            for x in (x0, x1)
            for y in (y0, y1)
        ]
        columns = np.stack([x for x, _ in corners])
        rows = np.stack([y for _, y in corners])
        return frame, np.stack([columns.min(0), rows.min(0), columns.max(0), rows.max(0)], 1)


def open_maps(folders: list[str], images: Images) -> list[MapView]:
    """The rasters of finished maps.

    Args:
        folders: each the ``--out`` of a map.
        images: where their rasters become known.

    Raises:
        UserError: one holds no map.
    """
    found = []
    for text in folders:
        folder = Path(text)
        if not (folder / MAP).is_file():
            raise UserError(f"--map {text} holds no finished map: give the --out of unigeoseg map")
        told = json.loads((folder / MAP).read_text(encoding="utf-8"))
        for one in told.get("inputs", [told]):
            beside = folder if one is told else folder / Path(one["outputs"]["mask"]).parent.name
            found.append(MapView(beside, one, images))
    return found
