"""Masks as RLE, against pycocotools on the whole picture; pixels as PNG."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from pipelines.build.encode import encode_crop, encode_mask, encode_png, encode_region
from pipelines.labels.regions import Region


def _whole(mask):
    rle = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": rle["counts"].decode()}


@pytest.mark.parametrize("seed", range(6))
def test_a_crop_gives_the_rle_of_the_whole_mask(seed):
    rng = np.random.default_rng(seed)
    for _ in range(300):
        height, width = (int(n) for n in rng.integers(1, [2, 3, 5, 9, 40, 130][seed] + 1, 2))
        h, w = int(rng.integers(1, height + 1)), int(rng.integers(1, width + 1))
        top, left = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
        crop = rng.random((h, w)) < rng.choice([0, 1, rng.random()])  # empty and full ones among them
        mask = np.zeros((height, width), bool)
        mask[top : top + h, left : left + w] = crop
        region = Region(1, top, left, top + h, left + w, crop)
        for found in (encode_crop(crop, top, left, height, width), encode_mask(mask)):
            assert found == _whole(mask)
        assert encode_region(region, height, width) == encode_mask(region.full(height, width))


def test_numbers_are_as_good_as_truth_values():
    mask = np.zeros((7, 5), np.uint8)
    mask[2:6, 1:4] = 1
    assert encode_mask(mask) == encode_mask(mask.astype(bool)) == _whole(mask)


@pytest.mark.parametrize("seed", range(3))
def test_a_png_holds_the_pixels_each_less_the_one_above(seed):
    pixels = np.random.default_rng(seed).integers(0, [2, 40, 256][seed], (23, 31, 3)).astype(np.uint8)
    data = encode_png(pixels)
    assert (np.asarray(Image.open(io.BytesIO(data))) == pixels).all()
    parts, at = b"", 8
    while at < len(data):  # chunks: length, name, content, checksum
        (length,) = struct.unpack(">I", data[at : at + 4])
        if data[at + 4 : at + 8] == b"IDAT":
            parts += data[at + 8 : at + 8 + length]
        at += 12 + length
    rows = np.frombuffer(zlib.decompress(parts), np.uint8).reshape(23, 1 + 31 * 3)
    above = np.concatenate([np.zeros((1, 31, 3), np.uint8), pixels[:-1]])
    assert (rows[:, 0] == 2).all() and (rows[:, 1:].reshape(pixels.shape) == pixels - above).all()
