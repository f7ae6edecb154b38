"""What mask files mean: class numbers, colours and truth, in every form."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from pipelines.build import BuildConfig
from pipelines.build.sources.registry import open_source
from pipelines.labels.stages import StageCounts
from pipelines.labels.tiling import Window
from pipelines.pictures.errors import UnusableImage
from pipelines.pictures.masks import NO_DATA, open_colours, open_index, read_truth
from tests.unit.build.layouts import write_image, write_tiff
from tests.unit.pictures.test_forms import pillow, tiff

H, W = 20, 30
MASK = np.zeros((H, W), np.uint8)
MASK[5:10, 4:16] = 1
CLASSES = np.random.default_rng(0).integers(0, 4, (H, W)).astype(np.uint8)


def png(bits, values, kind=0):
    """A PNG of any bit depth, written by hand."""
    rows = b""
    for row in values:
        text = "".join(format(int(v), f"0{bits}b") for v in row)
        text += "0" * (-len(text) % 8)
        rows += b"\0" + bytes(int(text[n : n + 8], 2) for n in range(0, len(text), 8))

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, kind, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def palette(values, colours):
    image = Image.frombytes("P", (W, H), values.tobytes())
    image.putpalette([v for colour in colours for v in colour] + [0] * (768 - 3 * len(colours)))
    return pillow(image, "PNG")


def full(value=255):
    return np.full((H, W), value, np.uint8)


#: Masks of the same 60 pixels.
TRUTHS = {
    "grey of 255": pillow(MASK * 255, "PNG"),
    "grey of 1": pillow(MASK, "PNG"),
    "one bit": png(1, MASK),
    "two bits": png(2, MASK * 3),
    "four bits": png(4, MASK * 15),
    "sixteen bits": png(16, MASK.astype(int) * 300),
    "rgb": pillow(np.repeat(MASK[..., None] * 255, 3, 2), "PNG"),
    "one channel": pillow(np.dstack([MASK * 0, MASK * 200, MASK * 0]), "PNG"),
    "rgba opaque": pillow(np.dstack([MASK * 255] * 3 + [full()]), "PNG"),
    "rgba half clear": pillow(np.dstack([MASK * 255] * 3 + [full(100)]), "PNG"),
    "la opaque": pillow(np.dstack([MASK * 255, full()]), "PNG"),
    "alpha is the mask": pillow(np.dstack([full()] * 3 + [MASK * 255]), "PNG"),
    "black, alpha is the mask": pillow(np.dstack([full(0)] * 3 + [MASK * 255]), "PNG"),
    "palette": palette(MASK, [(0, 0, 0), (255, 0, 0)]),
    "palette of white and black": palette(MASK, [(255, 255, 255), (0, 0, 0)]),
    "bmp": pillow(MASK * 255, "BMP"),
    "gif": pillow(MASK, "GIF"),
    "tif": tiff(MASK),
    "float tif": tiff(MASK.astype(np.float32)),
    "tif with no data": tiff(np.where(MASK, 1, -9999).astype(np.int16), nodata=-9999),
    "float tif without numbers": tiff(np.where(MASK, 1, np.nan).astype(np.float32)),
    "negative": tiff(MASK.astype(np.int16) * -1),
}


@pytest.fixture(params=["at once", "by rows"], autouse=True)
def size(request, monkeypatch):
    """Whatever is decided must not depend on the size of the file."""
    import pipelines.pictures.rasters as rasters

    monkeypatch.setattr(rasters, "_SMALL", 50_000_000 if request.param == "at once" else 0)


@pytest.mark.parametrize("name", sorted(TRUTHS))
def test_truth_masks(name):
    assert (read_truth(TRUTHS[name]) == MASK).all()


def test_a_truth_mask_without_target_and_one_of_everything():
    assert not read_truth(pillow(np.dstack([full(0)] * 3 + [full()]), "PNG")).any()
    assert read_truth(pillow(np.dstack([full()] * 4), "PNG")).all()
    with pytest.raises(UnusableImage, match="m: the mask cannot be read"):
        read_truth(b"text", "m")


#: Masks of the same class numbers.
NUMBERS = {
    "grey": pillow(CLASSES, "PNG"),
    "two bits": png(2, CLASSES),
    "four bits": png(4, CLASSES),
    "sixteen bits": png(16, CLASSES),
    "rgb": pillow(np.repeat(CLASSES[..., None], 3, 2), "PNG"),
    "rgba": pillow(np.dstack([CLASSES] * 3 + [np.where(CLASSES, 255, 0).astype(np.uint8)]), "PNG"),
    "la": pillow(np.dstack([CLASSES, full()]), "PNG"),
    "palette": palette(CLASSES, [(9, 9, 9), (8, 8, 8), (7, 7, 7), (6, 6, 6)]),
    "float": tiff(CLASSES.astype(np.float32)),
    "int16": tiff(CLASSES.astype(np.int16)),
    "uint32": tiff(CLASSES.astype(np.uint32)),
}


@pytest.mark.parametrize("name", sorted(NUMBERS))
def test_class_masks(name):
    raster = open_index(NUMBERS[name])
    assert (raster.rows(0, H) == CLASSES).all() and (raster.rows(3, 9) == CLASSES[3:9]).all()


def test_declared_no_data_and_no_numbers_stand_apart():
    values = CLASSES.astype(np.float32)
    values[0, :3] = np.nan
    raster = open_index(tiff(values, nodata=2))
    assert (
        raster.rows(0, H) == np.where(np.isnan(values) | (values == 2), NO_DATA, CLASSES.astype(int))
    ).all()
    soft = open_index(tiff(values / 4, nodata=0.5), soft=True).rows(0, H)
    assert (np.isnan(soft) == (np.isnan(values) | (values == 2))).all()


def test_what_holds_no_class_numbers():
    colours = np.random.default_rng(0).integers(0, 9, (H, W, 3)).astype(np.uint8)
    late = np.repeat(CLASSES[..., None], 3, 2)
    late[15, 7, 1] += 1
    for data in (
        pillow(colours, "PNG"),
        pillow(late, "PNG"),
        tiff(CLASSES / np.float32(3)),
        TRUTHS["alpha is the mask"],
    ):
        with pytest.raises(UnusableImage, match="one class number a pixel") as found:
            open_index(data, name="m").rows(0, H)
        assert found.value.reason == "mask_kind"


def test_colour_masks():
    colours = np.asarray([(60, 16, 152), (254, 221, 58), (0, 0, 0), (255, 255, 255)], np.uint8)
    wanted = colours[CLASSES]
    for data in (
        pillow(wanted, "PNG"),
        pillow(np.dstack([wanted, CLASSES * 80]), "PNG"),
        palette(CLASSES, colours.tolist()),
        tiff(wanted),
        pillow(wanted, "BMP"),
    ):
        assert (open_colours(data).rows(0, H) == wanted).all()
    black = pillow(Image.fromarray(MASK > 0), "PNG")
    assert (open_colours(black).rows(0, H) == np.repeat(MASK[..., None] * 255, 3, 2)).all()


def test_class_values_of_any_sign_and_no_data_are_told_apart_in_a_build(tmp_path):
    values = np.random.default_rng(0).choice([-3, 0, 70000, 255], (32, 40)).astype(np.int32)
    values[0, :5] = -1
    values[1, :2] = 9
    write_image(tmp_path / "i" / "a.png", np.zeros((32, 40, 3), np.uint8))
    (tmp_path / "m").mkdir()
    write_tiff(tmp_path / "m" / "a.tif", values, nodata=-1)
    (tmp_path / "t.yaml").write_text(
        "licence: mine\nlayouts: [{image: 'i/{name}.png', mask: 'm/{name}.tif'}]\nclasses:\n"
        "  - {name: a, value: -3, category: 25 Building}\n  - {name: b, value: 70000, category: 10 Water}\n"
        "  - {name: c, value: 0, category: null}\n  - {name: d, value: 255, category: 9 Forest}\n"
    )
    source = open_source(str(tmp_path / "t.yaml"), tmp_path, BuildConfig())
    opened = source.read(next(iter(source.items())))
    labels = opened.cut(Window(0, 0, 32, 40)).labels
    known = {-3: 25, 70000: 10, 255: 9}
    assert (labels == np.vectorize(lambda v: known.get(int(v), 0))(values)).all()
    counts = StageCounts()
    opened.count(counts)
    row = next(r for r in counts.rows() if r["name"] == "standardise")
    assert row["dropped"] == {"ignore": int((values == 0).sum()), "no_data": 5, "unknown": 2}
    assert row["in"] == row["out"] + sum(row["dropped"].values()) == 32 * 40


def test_jpeg_masks_have_values_near_the_written_ones():
    data = io.BytesIO()
    Image.fromarray(MASK * 255).save(data, "JPEG", quality=95)
    soft = open_index(data.getvalue(), soft=True).rows(0, H)
    assert ((soft >= 128) == (MASK > 0)).all()
