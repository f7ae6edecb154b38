"""One stretch for a map's inputs, whatever the resolution, found with one look at each of them."""

import numpy as np
import pytest

from pipelines.maps.raster import MapRaster
from pipelines.maps.request import Request
from pipelines.maps.scene import open_scenes
from tests.geotiffs import write


@pytest.mark.parametrize("gsd", [None, 7.3])
def test_every_input_gets_the_percentiles_of_all(gsd, tmp_path, monkeypatch):
    """Three rasters of different brightness, each of which alone has another stretch."""
    rng = np.random.default_rng(0)
    bands = [rng.integers(500 * n, 500 * n + 900, (3, 300, 260)).astype(np.uint16) for n in range(3)]
    paths = [write(tmp_path / f"{n}.tif", values) for n, values in enumerate(bands)]
    looks, preview = [], MapRaster.preview

    def counted(self, chosen):
        looks.append(self.where)
        return preview(self, chosen)

    monkeypatch.setattr(MapRaster, "preview", counted)
    scenes = open_scenes(paths, Request("m", tuple(paths), "o", text="a", gsd=gsd), 64)
    wanted = np.percentile(np.concatenate([b.reshape(3, -1) for b in bands], 1), [2, 98], axis=1).T
    for scene in scenes:
        np.testing.assert_allclose(scene.limits, wanted)
    assert sorted(looks) == sorted(paths)
