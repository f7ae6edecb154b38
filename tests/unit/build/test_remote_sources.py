"""Sources and benchmarks in an object store or on a web server: the same stores as from a folder."""

import email.utils
import hashlib
import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from cluster.s3 import LocalS3
from jobs.cli import cli
from pipelines.build import BuildConfig, build_store
from pipelines.build.parts import run_block
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


#: Where the pictures and masks of a source lie.
_KINDS = {
    ("masks", "picture"): "/i/",
    ("masks", "mask"): "/m/",
    ("refsegrs", "picture"): "/images/",
    ("refsegrs", "mask"): "/masks/",
}


def killed(*_):
    raise KeyboardInterrupt


def stopped(table, root, out, monkeypatch):
    """Builds until all tiles are made, and no further."""
    with monkeypatch.context() as patch:
        patch.setattr("pipelines.build.build.measure_block", killed)
        with pytest.raises(KeyboardInterrupt):
            built(table, root, out)


def blocks_made(monkeypatch):
    """Fills with the numbers of the blocks that are worked on from now on."""
    made = []

    def noted(number, **more):
        made.append(number)
        return run_block(number, **more)

    monkeypatch.setattr("pipelines.build.build.run_block", noted)
    return made


def etag(file):
    return "ETag", hashlib.sha256(file.read_bytes()).hexdigest()


def changed(file):
    return "Last-Modified", email.utils.formatdate(file.stat().st_mtime, usegmt=True)


@pytest.mark.parametrize("place", ["folder", "s3"])
@pytest.mark.parametrize("name", ["masks", "refsegrs"])
@pytest.mark.parametrize("kind", ["picture", "mask"])
def test_a_changed_file_is_noticed_by_a_resumed_build(name, kind, place, places, tmp_path, monkeypatch):
    (tmp_path / "t.yaml").write_text(TABLES["masks"])
    table = str(tmp_path / "t.yaml") if name == "masks" else name
    root = places[place] + ("/bench" if name == "refsegrs" else "")
    stopped(table, root, tmp_path / "s", monkeypatch)
    filesystem, inside = open_filesystem(root)
    files = sorted(filesystem.find(inside))
    file = next(f for f in files if _KINDS[name, kind] in f and f.endswith((".png", ".tif")))
    before = filesystem.cat_file(file)
    pixels = cv2.imdecode(np.frombuffer(before, np.uint8), cv2.IMREAD_UNCHANGED)
    suffix = file[file.rindex(".") :]
    filesystem.pipe_file(file, cv2.imencode(suffix, pixels[::-1])[1].tobytes())
    try:
        _, resumed = built(table, root, tmp_path / "s")
        _, fresh = built(table, root, tmp_path / "fresh")
    finally:
        filesystem.pipe_file(file, before)
    assert resumed == fresh != built(table, root, tmp_path / "first")[1]


@pytest.mark.parametrize(
    ("name", "marks"),
    [("masks", etag), ("masks", changed), ("masks", None), ("csv", etag), ("csv", None), ("refsegrs", etag)],
)
def test_a_file_that_changed_on_a_web_server_is_noticed(name, marks, places, tmp_path, monkeypatch):
    (tmp_path / "t.yaml").write_text(TABLES.get(name, ""))
    table = str(tmp_path / "t.yaml") if name in TABLES else name
    folder = shutil.copytree(
        f"{places['folder']}/bench" if name == "refsegrs" else places["folder"], tmp_path / "in"
    )
    kind = {"masks": "m/a b.png", "csv": "l.csv", "refsegrs": "masks/*"}[name]
    file = next(iter(sorted(folder.glob(kind))))
    with WebServer(folder, marks) as web:
        stopped(table, web.url, tmp_path / "s", monkeypatch)
        if name == "csv":
            text = file.read_text().replace("(40, 40), (10, 40)", "(44, 44), (10, 44)")
            file.write_text(text + ("\n" if marks is None else ""))
        else:
            pixels = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
            cv2.imwrite(str(file), pixels[::-1])
            if marks is None:
                file.write_bytes(file.read_bytes() + b"\0" * 9)
        os.utime(file, (1e9, 1e9))
        made = blocks_made(monkeypatch)
        _, resumed = built(table, web.url, tmp_path / "s")
        assert made == [0]
        _, fresh = built(table, web.url, tmp_path / "fresh")
    assert resumed == fresh


@pytest.mark.parametrize("marks", [etag, changed, None], ids=["etag", "time", "size"])
def test_what_did_not_change_on_a_web_server_is_not_read_again(marks, places, tmp_path, monkeypatch):
    (tmp_path / "t.yaml").write_text(TABLES["masks"])
    with WebServer(Path(places["folder"]), marks) as web:
        stopped(str(tmp_path / "t.yaml"), web.url, tmp_path / "s", monkeypatch)
        sent = dict(web.sent)
        made = blocks_made(monkeypatch)
        built(str(tmp_path / "t.yaml"), web.url, tmp_path / "s")
    assert not made and all(web.sent[file] == size for file, size in sent.items() if file.endswith(".png"))


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
