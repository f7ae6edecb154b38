"""Pictures on a web server or in an object store, storage of other kinds, and pictures of any size."""

import gc

import numpy as np
import pytest
import rasterio
from PIL import Image

from cluster.s3 import LocalS3
from pipelines.evaluate.image_file import read_image
from pipelines.pictures.errors import UnusableImage
from pipelines.pictures.picture import open_picture
from pipelines.pictures.remote import Remote
from pipelines.storage.filesystem import open_filesystem
from tests.unit.pictures.test_forms import FORMS, H, W, oriented, tiff
from tests.web_server import WebServer
from unigeoseg.errors import UserError

LARGE = np.random.default_rng(0).integers(0, 256, (1500, 2000, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def files():
    return {name: FORMS[name][0] for name in ("rgb.png", "wide.tif", "rgba.webp")} | {
        "cog.tif": tiff(LARGE, "COG", BLOCKSIZE=256),
        "cut.png": FORMS["rgb.png"][0][:60],
    }


@pytest.fixture(scope="module")
def web(files, tmp_path_factory):
    """The files on a web server that answers to ranges."""
    folder = tmp_path_factory.mktemp("web")
    for name, data in files.items():
        (folder / name).write_bytes(data)
    with WebServer(folder) as server:
        yield server


def test_pictures_on_a_web_server(web, files):
    url, sent = web.url, web.sent
    for name in ("rgb.png", "wide.tif", "rgba.webp"):
        assert (read_image(f"{url}/{name}") == open_picture(files[name]).pixels()).all(), name
    picture = open_picture(Remote(f"{url}/cog.tif"))
    assert (picture.raster.rows(700, 720) == LARGE[700:720]).all()
    assert 0 < sent["cog.tif"] < len(files["cog.tif"]) / 2  # by ranges
    with pytest.raises(UserError, match="does not exist"):
        read_image(f"{url}/nothing.png")
    with pytest.raises(UserError, match="damaged or cut off"):
        read_image(f"{url}/cut.png")


@pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
def test_pictures_on_a_web_server_are_turned_as_on_disk(kind, tmp_path):
    (tmp_path / "a").write_bytes(oriented(6, kind))
    with WebServer(tmp_path) as web:
        for turn in (True, False):
            found = read_image(f"{web.url}/a", turn)
            assert (found == read_image(tmp_path / "a", turn)).all()
            assert found.shape == ((W, H, 3) if turn else (H, W, 3))


def test_pictures_in_an_object_store(files, monkeypatch):
    with LocalS3() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        filesystem, root = open_filesystem(server.url)
        for name, data in files.items():
            filesystem.pipe_file(f"{root}/{name}", data)
        for name in ("rgb.png", "wide.tif", "rgba.webp", "cog.tif"):
            for scheme in ("s3", "S3"):
                found = read_image(f"{scheme}://{server.bucket}/{name}")
                assert (found == open_picture(files[name]).pixels()).all(), name
        with pytest.raises(UserError, match="does not exist"):
            read_image(f"{server.url}/nothing.tif")


def test_a_file_may_be_open_more_than_once(files, web):
    remote = Remote(f"{web.url}/cog.tif")
    one, two = remote.open(), remote.open()
    assert one != two and len({one: 1, two: 2}) == 2
    first, second = open_picture(remote), open_picture(remote)
    assert (first.raster.rows(0, 9) == LARGE[:9]).all()
    del first
    gc.collect()
    assert (second.raster.rows(700, 720) == LARGE[700:720]).all()


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("gs://b/x", r"gs:// needs a package.*pip install gcsfs"),
        ("az://b/x", r"pip install adlfs"),
        ("nothing://b/x", "no kind of storage"),
    ],
)
def test_other_storage_says_what_there_is(path, words):
    with pytest.raises(UserError, match=words) as found:
        open_filesystem(path)
    assert "s3://bucket/prefix" in str(found.value)


def test_pictures_of_hundreds_of_megapixels_are_read_by_rows(tmp_path):
    Image.MAX_IMAGE_PIXELS, before = 1000, Image.MAX_IMAGE_PIXELS
    try:
        Image.fromarray(LARGE).save(tmp_path / "a.png")
        picture = open_picture(tmp_path / "a.png")
    finally:
        Image.MAX_IMAGE_PIXELS = before
    assert picture.file is not None and (picture.raster.rows(900, 910) == LARGE[900:910]).all()
    with rasterio.open(
        tmp_path / "huge.tif", "w", driver="GTiff", height=50_000, width=50_000, count=3, dtype="uint8",
        tiled=True, blockxsize=512, blockysize=512, sparse_ok=True, compress="deflate",
    ) as data:  # fmt: skip
        data.write(
            LARGE[:512, :512].transpose(2, 0, 1), window=rasterio.windows.Window(40_960, 40_960, 512, 512)
        )
    huge = open_picture(tmp_path / "huge.tif")
    assert (huge.height, huge.width) == (50_000, 50_000)
    assert (huge.raster.rows(40_960, 40_970)[:, 40_960:41_472] == LARGE[:10, :512]).all()
    with pytest.raises(UserError, match=r"50000x50000 pixels.*cut it into tiles"):
        read_image(tmp_path / "huge.tif")
    (tmp_path / "claims.bmp").write_bytes(b"BM" + bytes(100))
    with pytest.raises(UnusableImage, match="cannot be read"):
        open_picture(tmp_path / "claims.bmp")
