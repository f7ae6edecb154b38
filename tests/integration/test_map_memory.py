"""Peak memory of a map at 4,096 x 4,096 and at 16,384 x 16,384 pixels."""

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.tiny_export import write_export

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1800)]

#: The model's own memory does not depend on the raster: brightness takes the place of its answer, so that a
#: thousand windows take seconds. All else is real.
_MAP = """
import json, resource, sys
import numpy as np, rasterio
from pipelines.maps.make import make_map
from pipelines.maps.request import Request
from unigeoseg.segmenter import Segmenter

folder, export, side = sys.argv[1], sys.argv[2], int(sys.argv[3])
with rasterio.open(
    f"{folder}/x.tif", "w", driver="GTiff", height=side, width=side, count=3, dtype="uint8", crs="EPSG:32633",
    transform=rasterio.Affine(0.5, 0, 400000, 0, -0.5, 5600000), tiled=True, blockxsize=512, blockysize=512,
    compress="deflate", zlevel=1,
) as file:
    y, x = np.mgrid[:512, :512]
    tile = (127 + 120 * np.sin(x / 20.0) * np.sin(y / 31.0)).astype(np.uint8)
    for top in range(0, side, 512):
        for left in range(0, side, 512):
            file.write(np.stack([tile] * 3), window=rasterio.windows.Window(left, top, 512, 512))
Segmenter.squares = lambda self, images, questions, seen=None: np.stack(
    [(image[..., 0].astype(np.float32) - 190) / 16 for image in images]  # windows have the model's size
)
result = make_map(
    Request(export, (f"{folder}/x.tif",), f"{folder}/out", text="the block"), progress=False
)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"peak_mib": peak, "windows": result["windows"], "objects": result["objects"]}))
"""


def test_memory_does_not_follow_the_raster(tmp_path):
    export = write_export(tmp_path / "export", size=256)
    script = tmp_path / "map_once.py"
    script.write_text(_MAP)
    found = {}
    for side in (4096, 16384):
        (tmp_path / str(side)).mkdir()
        done = subprocess.run(
            [sys.executable, script, tmp_path / str(side), export, str(side)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=1500,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found[side] = json.loads(done.stdout.strip().splitlines()[-1])
    assert found[16384]["windows"] > 14 * found[4096]["windows"]
    assert found[16384]["objects"] > 14 * found[4096]["objects"] > 1000
    assert found[16384]["peak_mib"] < 1.2 * found[4096]["peak_mib"], found
