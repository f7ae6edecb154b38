"""A folder with everything that the examples name, small."""

import json
import re
import shutil
import zipfile
from pathlib import Path

import geopandas
import numpy as np
from PIL import Image

from pipelines.build import BuildConfig, build_store
from pipelines.storage.filesystem import open_filesystem
from tests.examples.collect import ROOT
from tests.geotiffs import UTM, scene, write
from tests.release_layouts import LAYOUTS
from tests.unit.build.layouts import write_image
from tests.unit.build.test_dubai import write_pair
from tests.unit.build.test_own_splits import phrases


def make_workspace(folder: Path) -> None:
    """Stores, pictures, archives and settings; runs come from the examples themselves."""
    (folder / "jobs").symlink_to(ROOT / "jobs")
    shutil.copy(ROOT / "ray_cluster.yaml", folder)
    if (ROOT.parent / "shared/fixtures").is_dir():
        (folder / "fixtures").symlink_to(ROOT.parent / "shared/fixtures")
    (folder / "my.yaml").write_text("extends: quickstart\nname: my\n")
    for name in ("x.png", "scene.png"):
        noise = np.random.default_rng(1).integers(0, 255, (96, 128, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / name)
    (folder / "scenes").mkdir()
    for name in ("a.png", "b.png"):
        shutil.copy(folder / "x.png", folder / "scenes" / name)
    (folder / "asked.csv").write_text('image,text,box\na.png,the lake,\nb.png,,"0.1,0.2,0.4,0.5"\n')
    _rasters(folder)
    with zipfile.ZipFile(folder / "Train.zip", "w") as archive:
        archive.write(folder / "x.png", "Train/Urban/images_png/0.png")
    LAYOUTS["rrsisd"](folder / "downloads/RRSIS-D")
    for tile in range(1, 9):
        for part in range(1, 3):
            write_pair(folder / "Semantic segmentation dataset", tile, part)
    _city(folder)
    _stores(folder / "stores", folder)
    step = {"rows": [{"name": "train step", "seconds": 0.35, "batch": 2}]}
    (folder / "step.json").write_text(json.dumps(step))


def _rasters(folder: Path) -> None:
    """A GeoTIFF, two tiles, points on the first, and what is known to be there."""
    write(folder / "city.tif", scene(150, 200))
    write(folder / "landcover.tif", (scene(150, 200, bands=1) // 40))
    for name in ("a.tif", "b.tif"):
        write(folder / "tiles" / name, scene(40, 40))
    points = geopandas.points_from_xy([400030, 400060], [5599970, 5599950], crs=UTM)
    geopandas.GeoDataFrame(geometry=points).to_file(folder / "points.gpkg", driver="GPKG")
    lake, surveyed = points.buffer(12)[:1], points.buffer(60)[1:]
    geopandas.GeoDataFrame({"kind": ["lake"]}, geometry=lake).to_file(folder / "lakes.gpkg", driver="GPKG")
    geopandas.GeoDataFrame(geometry=surveyed).to_file(folder / "surveyed.gpkg", driver="GPKG")


def _city(folder: Path) -> None:
    """The documentation's own table, and imagery that fits it."""
    text = (ROOT / "docs/own_data.md").read_text(encoding="utf-8")
    block = re.search(r"```yaml\n(# my-city\.yaml.*?)```", text, re.DOTALL)
    assert block is not None
    (folder / "my-city.yaml").write_text(block[1])
    rng = np.random.default_rng(2)
    for city in ("north", "south"):
        for number in range(3):
            bands = rng.integers(0, 3000, (160, 160, 4)).astype(np.uint16)
            mask = np.zeros((160, 160), np.uint8)
            mask[20:70, 30:90] = 1
            write_image(folder / f"imagery/{city}/{number}.tif", bands)
            write_image(folder / f"imagery/{city}/{number}_mask.png", mask)


def _stores(stores: Path, folder: Path) -> None:
    few = {"tile": {"size": 128, "stride": 128}, "workers": 0, "split": {"val": 0.2}}
    config = BuildConfig(**few, source={"scenes": 40, "size": 128})
    build_store("synthetic", None, stores / "synthetic", config, progress=False, preview=False)
    for name in ("quickstart", "dubai"):
        shutil.copytree(stores / "synthetic", stores / name)
    build_store("refsegrs", phrases(folder / "phrases"), stores / "potsdam", BuildConfig(workers=0), False,
                preview=False)  # fmt: skip
    source = str(folder / "my-city.yaml")
    build_store(source, folder / "imagery", stores / "loveda", BuildConfig(**few), False, preview=False)


def upload(folder: Path, prefix: str) -> None:
    """Copies a folder to ``s3://…``."""
    filesystem, root = open_filesystem(prefix)
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        filesystem.put_file(str(file), f"{root}/{file.relative_to(folder).as_posix()}")
