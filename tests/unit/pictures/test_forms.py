"""A picture in each form that people have, through each door: builds, benchmarks and prediction."""

import io
import warnings

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.enums import ColorInterp

from pipelines.build import BuildConfig
from pipelines.build.sources.registry import open_source
from pipelines.evaluate.image_file import read_image
from pipelines.labels.tiling import Window
from pipelines.pictures.picture import Rules, open_picture
from pipelines.store.record import decode_image
from pipelines.triplets.truth import decode_picture

H, W = 24, 40
RGB = np.random.default_rng(0).integers(0, 256, (H, W, 3)).astype(np.uint8)
WIDE = np.random.default_rng(1).integers(200, 4000, (H, W, 3)).astype(np.uint16)
ALPHA = np.where(np.arange(W) < 10, 0, 255).astype(np.uint8)[None].repeat(H, 0)
TABLE = """
licence: mine
layouts: [{image: 'i/{name}.{suffix}', mask: 'm/{name}.png'}]
classes: [{name: a, value: 1, category: 25 Building}, {name: b, value: 0, category: null}]
"""


def pillow(pixels, kind, **options):
    """The bytes of a picture that Pillow wrote."""
    buffer = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(values, kind="GTiff", alpha=False, mask=None, **options):
    """The bytes of a raster ``[H, W, C]`` that rasterio wrote."""
    bands = np.moveaxis(np.atleast_3d(values), -1, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.MemoryFile() as memory:
            profile = {"height": bands.shape[1], "width": bands.shape[2], "count": len(bands)}
            with memory.open(driver=kind, dtype=bands.dtype, **profile, **options) as data:
                data.write(bands)
                if alpha:
                    data.colorinterp = [*data.colorinterp[:-1], ColorInterp.alpha]
                if mask is not None:
                    data.write_mask(mask)
            return memory.read()


def stretched(values, valid=None):
    """Percentiles 2 to 98 of each band, in float64."""
    found = np.zeros(values.shape, np.float64)
    for band in range(values.shape[2]):
        seen = values[..., band] if valid is None else values[..., band][valid]
        low, high = np.percentile(seen, [2, 98])
        found[..., band] = np.clip(np.rint((values[..., band] - low) * 255.0 / (high - low)), 0, 255)
    return found if valid is None else found * valid[..., None]


def palette():
    image = Image.fromarray(RGB).quantize(16)
    return pillow(image, "PNG"), np.asarray(image.convert("RGB"))


def cmyk():
    image = Image.fromarray(RGB).convert("CMYK")
    return np.asarray(image), np.asarray(image.convert("RGB"))


def oriented(turn, kind="JPEG"):
    exif = Image.Exif()
    exif[0x0112] = turn
    options = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {}
    return pillow(RGB, kind, exif=exif, **options)


CLEAR = RGB * (ALPHA > 0)[..., None]
GREY = RGB[..., :1].repeat(3, 2)
#: bytes, what they look like, most difference, where there is data
FORMS = {
    "rgb.png": (pillow(RGB, "PNG"), RGB, 0, None),
    "rgb.bmp": (pillow(RGB, "BMP"), RGB, 0, None),
    "rgb.tif": (tiff(RGB), RGB, 0, None),
    "tiled.tif": (tiff(RGB, tiled=True, blockxsize=16, blockysize=16, compress="lzw"), RGB, 0, None),
    "big.tif": (tiff(RGB, BIGTIFF="YES"), RGB, 0, None),
    "cog.tif": (tiff(RGB, "COG"), RGB, 0, None),
    "lossless.webp": (pillow(RGB, "WEBP", lossless=True), RGB, 0, None),
    "lossless.jp2": (tiff(RGB, "JP2OpenJPEG", QUALITY="100", REVERSIBLE="YES"), RGB, 0, None),
    "grey.png": (pillow(RGB[..., 0], "PNG"), GREY, 0, None),
    "grey.tif": (tiff(RGB[..., 0]), GREY, 0, None),
    "bit.png": (
        pillow(Image.fromarray(RGB[..., 0] > 99), "PNG"),
        np.uint8(255) * (GREY > 99),
        0,
        None,
    ),
    "bit.tif": (tiff((RGB[..., 0] > 99).astype(np.uint8), nbits=1), np.uint8(255) * (GREY > 99), 0, None),
    "palette.png": (*palette(), 0, None),
    "palette.gif": (pillow(Image.open(io.BytesIO(palette()[0])), "GIF"), palette()[1], 0, None),
    "palette.tif": (pillow(Image.open(io.BytesIO(palette()[0])), "TIFF"), palette()[1], 0, None),
    "cmyk.tif": (pillow(Image.fromarray(cmyk()[0], "CMYK"), "TIFF"), cmyk()[1], 1, None),
    "rgba.png": (pillow(np.dstack([RGB, ALPHA]), "PNG"), CLEAR, 0, ALPHA > 0),
    "rgba.tif": (tiff(np.dstack([RGB, ALPHA]), alpha=True), CLEAR, 0, ALPHA > 0),
    "rgba.webp": (pillow(np.dstack([RGB, ALPHA]), "WEBP", lossless=True, exact=True), CLEAR, 0, ALPHA > 0),
    "la.png": (pillow(np.dstack([RGB[..., 0], ALPHA]), "PNG"), GREY * (ALPHA > 0)[..., None], 0, ALPHA > 0),
    "masked.tif": (tiff(RGB, mask=ALPHA), CLEAR, 0, ALPHA > 0),
    "infrared.tif": (tiff(np.dstack([RGB, RGB[..., :1] // 2 + 60]), alpha=True), RGB, 0, None),
    "wide.png": (tiff(WIDE, "PNG"), stretched(WIDE), 1, None),
    "wide.tif": (tiff(WIDE), stretched(WIDE), 1, None),
    "nbits12.tif": (tiff(WIDE, nbits=12), stretched(WIDE), 1, None),
    "float.tif": (tiff(WIDE.astype(np.float32) / 7), stretched(WIDE), 1, None),
    "wide4.tif": (
        tiff(np.dstack([WIDE, ALPHA.astype(np.uint16) * 257]), photometric="RGB", ALPHA="YES"),
        stretched(WIDE, ALPHA > 0),
        1,
        ALPHA > 0,
    ),
    "nodata.tif": (
        tiff(np.where(ALPHA[..., None] > 0, WIDE, 7).astype(np.uint16), nodata=7),
        stretched(WIDE, ALPHA > 0),
        1,
        ALPHA > 0,
    ),
    "nan.tif": (
        tiff(np.where(ALPHA[..., None] > 0, WIDE, np.nan).astype(np.float32)),
        stretched(WIDE, ALPHA > 0),
        1,
        ALPHA > 0,
    ),
}


def door_build(data, name, tmp_path):
    """The pixels that a build cuts, and what a store that keeps the bytes would show."""
    for folder in ("i", "m"):
        (tmp_path / folder).mkdir()
    (tmp_path / "i" / name).write_bytes(data)
    stem = name.partition(".")[0]
    Image.fromarray(np.ones((H, W), np.uint8)).save(tmp_path / "m" / f"{stem}.png")
    (tmp_path / "t.yaml").write_text(TABLE)
    source = open_source(str(tmp_path / "t.yaml"), tmp_path, BuildConfig())
    opened = source.read(next(iter(source.items())))
    part = opened.cut(Window(0, 0, opened.height, opened.width))
    if opened.encoded is not None:
        assert (decode_image(opened.encoded, H, W) == part.pixels).all()
    return part


@pytest.mark.parametrize("name", sorted(FORMS))
def test_every_form_looks_the_same_through_every_door(name, tmp_path):
    data, expected, away, valid = FORMS[name]
    part = door_build(data, name, tmp_path)
    pixels = part.pixels
    assert pixels.dtype == np.uint8 and pixels.shape == (H, W, 3)
    assert np.abs(pixels - np.asarray(expected, np.float64)).max() <= away
    assert (read_image(tmp_path / "i" / name) == pixels).all()
    assert (decode_picture(data, name).pixels() == pixels).all()
    # What the picture does not show has no label.
    assert (part.labels == np.where(np.ones((H, W), bool) if valid is None else valid, 25, 0)).all()


def test_jpeg_looks_the_same_through_every_door(tmp_path):
    data = pillow(RGB, "JPEG", quality=95)
    pixels = door_build(data, "a.jpg", tmp_path).pixels
    assert np.abs(pixels.astype(int) - RGB).mean() < 60
    assert (read_image(tmp_path / "i" / "a.jpg") == pixels).all()
    assert (decode_picture(data, "a.jpg").pixels() == pixels).all()
    data = pillow(Image.fromarray(cmyk()[0], "CMYK"), "JPEG", quality=98, subsampling=0)
    assert np.abs(open_picture(data).pixels().astype(int) - cmyk()[1]).mean() < 5


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientations_are_turned_as_pillow_turns_them(turn, kind):
    from PIL import ImageOps

    data = oriented(turn, kind)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    picture = open_picture(data)
    assert (picture.pixels() == expected).all() and picture.turn == turn
    assert (picture.encoded is None) == (turn != 1 or kind not in ("JPEG", "PNG"))
    left = open_picture(data, Rules(turn=False))
    assert left.turn == 1 and left.pixels().shape == (H, W, 3)


def test_the_size_of_a_file_does_not_change_what_it_shows(monkeypatch):
    import pipelines.pictures.picture as module
    import pipelines.pictures.rasters as rasters

    for name, (data, *_) in FORMS.items():
        monkeypatch.setattr(module, "_AT_ONCE", 50_000_000)
        monkeypatch.setattr(rasters, "_SMALL", 50_000_000)
        small = open_picture(data)
        monkeypatch.setattr(module, "_AT_ONCE", 10)
        monkeypatch.setattr(rasters, "_SMALL", 10)
        large = open_picture(data)
        assert large.file is not None, name
        assert (small.pixels() == large.pixels()).all(), name
        there = [p.valid is None or p.valid.rows(0, H) for p in (small, large)]
        assert np.all(np.asarray(there[0]) == np.asarray(there[1])), name


@pytest.mark.parametrize(
    "name", ["rgb.png", "rgb.tif", "rgb.bmp", "lossless.webp", "palette.gif", "lossless.jp2"]
)
def test_files_that_are_cut_off_empty_or_folders_are_refused(name, tmp_path):
    from pipelines.pictures.errors import UnusableImage

    data = FORMS[name][0]
    for part in (b"", data[:20], data[: len(data) // 2]):
        (tmp_path / name).write_bytes(part)
        for source in (tmp_path / name, part):
            with pytest.raises(UnusableImage) as found:
                open_picture(source, name=name).pixels()
            assert found.value.reason == "unreadable_image" and found.value.where == name
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UnusableImage, match="is a folder"):
        open_picture(tmp_path / "folder.png")


def test_a_picture_of_one_pixel_and_one_with_an_altered_byte():
    from pipelines.pictures.errors import UnusableImage

    for kind in ("PNG", "BMP", "TIFF"):
        assert open_picture(pillow(RGB[:1, :1], kind)).pixels().tolist() == [[RGB[0, 0].tolist()]]
    data = bytearray(tiff(WIDE, "PNG"))
    data[len(data) // 2] ^= 1
    with pytest.raises(UnusableImage, match="checksum"):
        open_picture(bytes(data))
