"""Reading samples: bytes to pixels and masks, one fetch an image, and every reason to refuse a record."""

import weakref

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

import pipelines.store.reader
from pipelines.storage.retry import Retry
from pipelines.store.index import StoreIndex
from pipelines.store.reader import ReadStats, StoreReader
from pipelines.store.record import BadRecord, decode_mask
from pipelines.store.texts import store_texts
from tests.tiny_store import write_store
from unigeoseg.errors import UserError

IMPATIENT = Retry(patience_s=0.2, refused_s=0.05, first_s=0.01, longest_s=0.05)


def open_reader(folder, **options):
    return StoreReader(StoreIndex.open(str(write_store(folder, **options))), IMPATIENT)


def test_samples_and_one_fetch_an_image(tmp_path):
    reader = open_reader(tmp_path, images=12)
    index = reader.index
    rows = list(range(len(index)))[::-1]
    loaded = reader.load(rows)
    assert [x.sample_id for x in loaded] == index.sample_ids(rows)
    assert reader.stats.requests == reader.stats.images == 12
    sizes = {(r["shard"], r["offset"]): r["nbytes"] for r in index.table.to_pylist()}
    assert reader.stats.bytes == sum(sizes.values())
    for x, row in zip(loaded, index.rows(rows), strict=True):
        assert x.reason == ""
        assert x.image.shape == (row["height"], row["width"], 3)
        assert x.sample.mask.shape == (row["height"], row["width"])
        assert x.sample.mask.dtype == np.uint8
        assert int(x.sample.mask.sum()) == row["mask_area"]
        if x.sample.box:
            left, top = round(x.sample.box[0] * row["width"]), round(x.sample.box[1] * row["height"])
            assert x.sample.mask[top, left] == 1
            assert x.sample.mask[:top].sum() == 0
    groups = reader.read(rows).groups
    assert len(groups) == 12
    assert sum(len(g.samples) for g in groups) == len(index)


def test_an_image_is_decoded_when_it_is_asked_for_and_held_while_rows_need_it(tmp_path, monkeypatch):
    reader = open_reader(tmp_path, images=6)
    first = reader.index.rows(range(len(reader.index)))
    rows = sorted(range(len(first)), key=lambda row: first[row]["n"])  # every image again and again
    decode, decoded = pipelines.store.reader.decode_image, []

    def watched(*arguments):
        image = decode(*arguments)
        decoded.append(weakref.ref(image))
        return image

    monkeypatch.setattr(pipelines.store.reader, "decode_image", watched)
    stats, places, ids = ReadStats(), [(e["shard"], e["offset"]) for e in first], []
    loaded = reader.each(rows, stats)
    for at, row in enumerate(rows):
        one = next(loaded)
        ids.append(one.sample_id)
        del one
        seen, rest = {places[r] for r in rows[: at + 1]}, {places[r] for r in rows[at + 1 :]}
        assert len(decoded) == len(seen)
        assert sum(image() is not None for image in decoded) <= len(seen & rest) + (places[row] not in rest)
    assert stats.samples == 0  # counted at the end
    assert next(loaded, None) is None and not any(image() is not None for image in decoded)
    assert ids == reader.index.sample_ids(rows)
    assert (stats.samples, stats.images, stats.requests) == (len(rows), 6, 6)


def test_png_pixels_are_exact_and_rgb(tmp_path):
    picture = np.zeros((40, 48, 3), np.uint8)
    picture[..., 0] = 200  # blue in OpenCV's order
    picture[0, 0] = (1, 2, 3)

    def replace(i, encoded, record):
        return cv2.imencode(".png", picture)[1].tobytes() if i == 1 else None

    reader = open_reader(tmp_path, images=2, damage=replace)
    row = len(reader.index) - 1
    np.testing.assert_array_equal(reader.load([row])[0].image, picture[..., ::-1])


def mutate(change):
    def damage(i, encoded, record):
        return change(encoded, record) if i == 1 else None

    return damage


def set_sample(**values):
    return mutate(lambda encoded, record: record["samples"][0].update(values))


EMPTY = {
    "size": [40, 48],
    "counts": coco_mask.encode(np.zeros((40, 48), np.uint8, order="F"))["counts"].decode(),
}


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (mutate(lambda encoded, record: encoded[: len(encoded) // 2]), "unreadable_image"),
        (mutate(lambda encoded, record: b"\0" * len(encoded)), "unreadable_image"),
        (
            mutate(lambda encoded, record: encoded[:60] + bytes([encoded[60] ^ 255]) + encoded[61:]),
            "unreadable_image",
        ),
        (mutate(lambda e, r: cv2.imencode(".png", np.zeros((9, 9, 3), np.uint8))[1].tobytes()), "image_size"),
        (set_sample(mask={"size": [40, 40], "counts": "00"}), "mask_size"),
        (set_sample(mask={"size": [40, 48], "counts": "5"}), "unreadable_mask"),
        (set_sample(mask=None), "unreadable_mask"),
        (set_sample(mask=EMPTY), "empty_mask"),
        (set_sample(box=[0.1, 0.1, 1.5, 0.2]), "coordinates"),
        (set_sample(box=[0.5, 0.1, 0.2, 0.2]), "coordinates"),
        (set_sample(box=None), "coordinates"),
        (set_sample(box=["a", 0, 1, 1]), "coordinates"),
        (set_sample(box=None, points=[[0.1, 0.2]] * 4), "coordinates"),
        (set_sample(instruction="  "), "text"),
        (set_sample(instruction=7), "text"),
        (mutate(lambda encoded, record: record.pop("samples") and None), "unreadable_record"),
    ],
)
def test_bad_records(tmp_path, damage, reason):
    reader = open_reader(tmp_path, images=3, damage=damage)
    row = int(np.flatnonzero(reader.index.images == 1)[0])
    (loaded,) = reader.load([row])
    assert (loaded.reason, loaded.sample) == (reason, None)
    assert reader.load([0])[0].reason == ""
    result = reader.read([row, 0])
    assert [b.reason for b in result.bad] == [reason]
    assert len(result.groups) == 1


def test_only_the_sample_with_text_that_is_not_utf8(tmp_path):
    store = write_store(tmp_path, images=2, damage=set_sample(instruction="XXXX"))
    shard = store / "shards" / "train-00000.tar"
    shard.write_bytes(shard.read_bytes().replace(b"XXXX", b"\xff\xfeXX"))
    reader = StoreReader(StoreIndex.open(str(store)), IMPATIENT)
    rows = np.flatnonzero(reader.index.images == 1)
    assert [x.reason for x in reader.load(rows)] == ["text"] + [""] * (len(rows) - 1)
    assert len(list(store_texts(reader.index))) > len(reader.index)


def test_missing_and_truncated_shards_name_the_object(tmp_path):
    reader = open_reader(tmp_path, images=12)
    last = len(reader.index) - 1
    path = tmp_path / "shards" / "train-00001.tar"
    content = path.read_bytes()
    path.write_bytes(content[: int(reader.index.rows([last])[0]["offset"]) + 100])
    with pytest.raises(UserError, match=r"train-00001.tar.*truncated"):
        reader.load([last])
    path.unlink()
    with pytest.raises(UserError, match=r"train-00001.tar is missing"):
        reader.load([last])
    assert reader.load([0])[0].reason == ""


def test_index_of_another_store(tmp_path):
    def rename(i, encoded, record):
        record["samples"][0]["sample_id"] = "other"

    with pytest.raises(UserError, match="do not belong together"):
        open_reader(tmp_path, images=2, damage=rename).load([0])


def test_a_passing_storage_error_is_retried(tmp_path, monkeypatch):
    reader = open_reader(tmp_path, images=2)
    real, failures = reader._fetcher._read, [OSError("503 slow down"), TimeoutError("read timed out")]

    def flaky(paths, *places):
        return [failures.pop()] * len(paths) if failures else real(paths, *places)

    monkeypatch.setattr(reader._fetcher, "_read", flaky)
    assert reader.load([0])[0].reason == ""
    assert reader.stats.retries == 2


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1), st.floats(0, 1))
@settings(max_examples=150, deadline=None)
def test_masks_of_any_shape(height, width, seed, density):
    mask = (np.random.default_rng(seed).random((height, width)) < density).astype(np.uint8)
    counts = coco_mask.encode(np.asfortranarray(mask))["counts"].decode()
    decoded = decode_mask({"size": [height, width], "counts": counts}, height, width)
    np.testing.assert_array_equal(decoded, mask)
    assert decoded.flags["C_CONTIGUOUS"]


@given(st.text(alphabet=[chr(c) for c in range(40, 120)], max_size=30))
@settings(max_examples=300, deadline=None)
def test_no_counts_crash_or_invent_pixels(counts):
    try:
        mask = decode_mask({"size": [8, 8], "counts": counts}, 8, 8)
    except BadRecord as error:
        assert error.reason == "unreadable_mask"
    else:
        assert set(np.unique(mask)) <= {0, 1}
