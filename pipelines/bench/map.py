"""Windows per second of a map beside those of its model alone, on a generated raster."""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import Affine

from pipelines.evaluate.models import find_export
from pipelines.maps.make import make_sheets
from pipelines.maps.planning import lay_out
from pipelines.maps.request import Request
from pipelines.models.machine import machine
from unigeoseg.segmenter import load


def bench_map(
    model: str, windows: int, rounds: int = 3, device: str | None = None, batch: int = 1
) -> dict[str, Any]:
    """Times a map and the model on the same windows, in turns.

    Args:
        model: by reference.
        windows: on a side of the raster, which is one block.
        rounds: the best one of each counts.
        device: such as ``cuda:1``.
        batch: windows at once.

    Returns:
        ``{"rows": [{"name", "windows", "seconds", "windows_per_second"}], "ratios": {"map/model"},
        "machine"}``.

    Raises:
        UserError: there is no such model.
    """
    source = find_export(model)
    segmenter = load(source, device)
    best: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="unigeoseg-bench-") as folder:
        path = Path(folder) / "x.tif"
        _write(path, segmenter.image_size, windows)
        for number in range(rounds):
            request = Request(
                source, (str(path),), f"{folder}/{number}", text="the building", device=device, batch=batch
            )
            sheets = lay_out(request)
            (sheet,) = sheets.sheets
            assert sheets.question is not None
            pixels = [
                sheet.scene.window(sheet.grid.window(row, column))[0]
                for row in range(windows)
                for column in range(windows)
            ]
            start = time.perf_counter()
            for at in range(0, len(pixels), batch):
                part = pixels[at : at + batch]
                segmenter.logits(part, [sheets.question] * len(part))
            bare = time.perf_counter() - start
            start = time.perf_counter()
            list(make_sheets(sheets, [0], segmenter, {"date": "2026-01-01"}, progress=False))
            whole = time.perf_counter() - start
            for name, seconds in (("model", bare), ("map", whole)):
                best[name] = min(seconds, best.get(name, seconds))
    count = windows**2
    rows = [
        {"name": name, "windows": count, "seconds": seconds, "windows_per_second": count / seconds}
        for name, seconds in best.items()
    ]
    return {"rows": rows, "ratios": {"map/model": best["model"] / best["map"]}, "machine": machine()}


def _write(path: Path, size: int, windows: int) -> None:
    """A raster of smooth noise that takes so many windows a side."""
    side = (windows - 1) * (size - size // 4) + size
    rng = np.random.default_rng(0)
    coarse: NDArray[np.uint8] = rng.integers(0, 255, (3, side // 8 + 1, side // 8 + 1)).astype(np.uint8)
    bands = coarse.repeat(8, axis=1).repeat(8, axis=2)[:, :side, :side]
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=side,
        width=side,
        count=3,
        dtype="uint8",
        crs="EPSG:32633",
        transform=Affine(0.5, 0, 400000, 0, -0.5, 5600000),
        tiled=True,
        blockxsize=256,
        blockysize=256,
        compress="deflate",
    ) as file:
        file.write(bands)
