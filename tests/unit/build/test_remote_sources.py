"""Sources and benchmarks in an object store or on a web server: the same stores as from a folder."""

import hashlib
import json

import numpy as np
import pytest
from click.testing import CliRunner

from cluster.s3 import LocalS3
from jobs.cli import cli
from pipelines.build import BuildConfig, build_store
from pipelines.storage.filesystem import open_filesystem
from tests.release_layouts import LAYOUTS
from tests.unit.build.layouts import write_image
from tests.unit.labels.test_unmatched import BOXES, MASKS, files
from tests.unit.pictures.test_forms import tiff
from tests.web_server import WebServer
from unigeoseg.errors import UserError

SHAPE = [10, 10, 40, 10, 40, 40, 10, 40]
CORNERS = '"[(10, 10), (40, 10), (40, 40), (10, 40)]"'
LABELS = {
    "l.json": json.dumps(
        {
            "images": [{"id": n, "file_name": f"{name}.png"} for n, name in enumerate(["a b", "c"])],
            "annotations": [
                {"id": n, "image_id": n, "category_id": 1, "segmentation": [SHAPE]} for n in range(2)
            ],
            "categories": [{"id": 1, "name": "ship"}],
        }
    ),
    "l.csv": "image_id,geometry,class\n" + "".join(f"{name}.png,{CORNERS},ship\n" for name in ("a b", "c")),
}
TABLES = {
    "masks": MASKS,
    "csv": BOXES % ("l.csv", "csv"),
    "coco": BOXES % ("l.json", "coco"),
    "tiff": MASKS.replace(".png", ".tif"),
}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A folder, and the same in a bucket and on a web server."""
    root = tmp_path_factory.mktemp("remote") / "data"
    rng = np.random.default_rng(0)
    mask = np.zeros((64, 64), np.uint8)
    mask[10:40, 10:40] = 1
    for name in ("a b", "c"):
        pixels = rng.integers(0, 256, (64, 64, 3)).astype(np.uint8)
        write_image(root / "i" / f"{name}.png", pixels)
        write_image(root / "m" / f"{name}.png", mask)
        (root / "i" / f"{name}.tif").write_bytes(tiff(pixels))
        (root / "m" / f"{name}.tif").write_bytes(tiff(mask))
    (root / "i" / "c.png").rename(root / "i" / "c.PNG")
    for name, text in LABELS.items():
        (root / name).write_text(text)
    (root / ".DS_Store").write_bytes(b"x")
    LAYOUTS["refsegrs"](root / "bench")
    with LocalS3() as server, WebServer(root) as web, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        filesystem, bucket = open_filesystem(server.url)
        filesystem.put(str(root), f"{bucket}/data", recursive=True)
        yield {"folder": str(root), "s3": f"{server.url}/data", "S3": f"S3://{bucket}/data/", "web": web.url}


def built(source, root, out, **more):
    config = BuildConfig.model_validate({"workers": 0} | more)
    result = build_store(source, root, out, config, progress=False, preview=False)
    shards = sorted((out / "shards").glob("*.tar"))
    return result, [hashlib.sha256(file.read_bytes()).hexdigest() for file in shards]


@pytest.mark.parametrize("place", ["s3", "S3", "web"])
@pytest.mark.parametrize("name", sorted(TABLES))
def test_a_remote_root_gives_the_store_of_a_folder(name, place, places, tmp_path):
    (tmp_path / "t.yaml").write_text(TABLES[name])
    here, wanted = built(str(tmp_path / "t.yaml"), places["folder"], tmp_path / "here")
    there, found = built(str(tmp_path / "t.yaml"), places[place], tmp_path / "there")
    assert here["samples"] == there["samples"] and here["samples"]["interactive"] == 2
    assert files(here) == files(there) and found == wanted


@pytest.mark.parametrize("place", ["s3", "web"])
def test_a_remote_benchmark_gives_the_store_of_a_folder(place, places, tmp_path):
    _, wanted = built("refsegrs", f"{places['folder']}/bench", tmp_path / "here")
    _, found = built("refsegrs", f"{places[place]}/bench", tmp_path / "there")
    assert found == wanted


def test_a_large_raster_is_read_by_ranges_and_each_part_once(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (2100, 2300, 3)).astype(np.uint8)
    mask = np.ones((2100, 2300), np.uint8)
    for place, values in (("i", pixels), ("m", mask)):
        (tmp_path / "in" / place).mkdir(parents=True)
        (tmp_path / "in" / place / "a.tif").write_bytes(tiff(values, "COG", BLOCKSIZE=256))
    (tmp_path / "t.yaml").write_text(TABLES["tiff"])
    more = {"rules": {"max_area": 1.0}, "tile": {"size": 512, "stride": 256}}
    _, wanted = built(str(tmp_path / "t.yaml"), tmp_path / "in", tmp_path / "here", **more)
    with WebServer(tmp_path / "in") as web:
        _, found = built(str(tmp_path / "t.yaml"), web.url, tmp_path / "there", **more)
    size = (tmp_path / "in" / "i" / "a.tif").stat().st_size
    assert found == wanted and size > 14_000_000
    assert web.largest["i/a.tif"] < size / 4 and web.sent["i/a.tif"] < 1.3 * size


def test_a_changed_object_is_noticed_by_a_resumed_build(places, tmp_path, monkeypatch):
    (tmp_path / "t.yaml").write_text(TABLES["masks"])

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pipelines.build.build.measure_block", killed)
        with pytest.raises(KeyboardInterrupt):
            built(str(tmp_path / "t.yaml"), places["s3"], tmp_path / "s")
    filesystem, root = open_filesystem(places["s3"])
    before = filesystem.cat_file(f"{root}/i/a b.png")
    filesystem.pipe_file(f"{root}/i/a b.png", filesystem.cat_file(f"{root}/i/c.PNG"))
    try:
        _, resumed = built(str(tmp_path / "t.yaml"), places["s3"], tmp_path / "s")
        _, fresh = built(str(tmp_path / "t.yaml"), places["s3"], tmp_path / "fresh")
    finally:
        filesystem.pipe_file(f"{root}/i/a b.png", before)
    assert resumed == fresh


@pytest.mark.parametrize(
    ("root", "words"),
    [
        ("s3://unigeoseg/nothing", "no such folder|holds no image"),
        ("{web}/nothing", "no such folder|holds no image"),
        ("gs://b/x", r"gs:// needs a package .*pip install gcsfs"),
        ("az://b/x", r"pip install adlfs"),
        ("ftpx://b/x", "no kind of storage"),
        ("http://127.0.0.1:9/x", "cannot read http://127.0.0.1:9/x"),
    ],
)
def test_what_cannot_be_had_is_said(root, words, places, tmp_path):
    (tmp_path / "t.yaml").write_text(MASKS)
    with pytest.raises(UserError, match=words):
        built(str(tmp_path / "t.yaml"), root.format(web=places["web"]), tmp_path / "s")


def test_the_commands_take_them(places, tmp_path):
    (tmp_path / "t.yaml").write_text(MASKS)
    words = ["data", "build", "--source", str(tmp_path / "t.yaml"), "--root", places["web"]]
    words += ["--out", f"{places['s3']}-store", "--set", "workers=0"]
    for more in (["data", "preview", f"{places['s3']}-store", "--out", str(tmp_path / "p.png")],):
        for one in (words, more):
            done = CliRunner().invoke(cli, one, catch_exceptions=False)
            assert done.exit_code == 0, done.output
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    done = CliRunner().invoke(cli, [*words[:-4], "--out", "x", "--dry-run", "--json"], catch_exceptions=False)
    assert json.loads(done.stdout)["images"] == 2
