"""Benchmarks as people have them: sizes that differ, forms of a segmentation, slips in boxes."""

import hashlib
import json
import pickle

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from pipelines.build import BuildConfig, build_store
from pipelines.pictures.turn import turn_pixels
from pipelines.store.record import BadRecord, decode_mask
from pipelines.triplets.layouts import open_layout
from unigeoseg.samples.prompts import parse_coordinates

H, W = 60, 80
SQUARE = np.zeros((H, W), np.uint8)
SQUARE[10:30, 20:50] = 1


def runs(mask):
    flat = np.concatenate([[0], mask.flatten(order="F"), [2]])
    return np.diff(np.concatenate([[0], np.flatnonzero(np.diff(flat))])).tolist()


def compressed(mask):
    rle = coco_mask.encode(np.asfortranarray(mask))
    return {"size": list(mask.shape), "counts": rle["counts"].decode()}


def rrsisd(root, segmentations, shape=(H, W)):
    """One picture and one expression for each segmentation."""
    (root / "images/rrsisd/JPEGImages").mkdir(parents=True)
    (root / "rrsisd").mkdir()
    images, notes, refs = [], [], []
    for n, (name, form) in enumerate(segmentations.items()):
        pixels = np.random.default_rng(n).integers(0, 255, (*shape, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(root / f"images/rrsisd/JPEGImages/{name}.jpg")
        images.append({"id": n, "file_name": f"{name}.jpg"})
        notes.append({"id": n, "image_id": n, "category_id": 0, "segmentation": form})
        sentence = {"raw": "the plane", "sent": "the plane"}
        refs.append({"ref_id": n, "ann_id": n, "image_id": n, "split": "test", "category_id": 0})
        refs[-1] |= {"file_name": f"{name}.jpg", "sentences": [sentence]}
    content = {"images": images, "annotations": notes, "categories": [{"id": 0, "name": "airplane"}]}
    (root / "rrsisd/instances.json").write_text(json.dumps(content))
    (root / "rrsisd/refs(unc).p").write_bytes(pickle.dumps(refs, protocol=2))


def build(source, root, out, /, **more):
    config = BuildConfig.model_validate({"workers": 0} | more)
    return build_store(source, root, out, config, progress=False, preview=False)


def stage(result, name):
    return next(row for row in result["stages"] if row["name"] == name)


FORMS = {
    "compressed": compressed(SQUARE),
    "list": [compressed(SQUARE)],
    "runs": {"size": [H, W], "counts": runs(SQUARE)},
    "polygon": [[20, 10, 50, 10, 50, 30, 20, 30]],
    "short": {"size": [H, W], "counts": runs(SQUARE)[:-1]},
    "long": {"size": [H, W], "counts": [*runs(SQUARE), 7]},
    "swapped": {"size": [W, H], "counts": runs(SQUARE)},
    "empty": [],
    "nothing": None,
}


def test_runs_that_do_not_fill_their_picture_are_refused_and_three_builds_are_the_same(tmp_path):
    rrsisd(tmp_path / "in", FORMS)
    hashes = set()
    for n in range(3):
        result = build("rrsisd", tmp_path / "in", tmp_path / f"out{n}", max_bad_share=1)
        shards = sorted((tmp_path / f"out{n}" / "shards").glob("*.tar"))
        hashes.add(tuple(hashlib.sha256(file.read_bytes()).hexdigest() for file in shards))
    assert len(hashes) == 1 and result["samples"]["referring"] == 4
    bad = {row["file"].rpartition("/")[2]: row["reason"] for row in result["quarantined"]}
    assert bad == {
        "short.jpg": "unreadable_mask",
        "long.jpg": "unreadable_mask",
        "swapped.jpg": "mask_size",
        "empty.jpg": "unreadable_mask",
        "nothing.jpg": "unreadable_mask",
    }


@pytest.mark.parametrize("shape", [(H + 1, W), (H, W + 1), (H - 1, W), (H, W)])
def test_masks_of_a_few_pixels_more_or_less_are_stretched_to_their_picture_and_counted(shape, tmp_path):
    rrsisd(tmp_path / "in", {"a": [compressed(SQUARE)]}, shape)
    result = build("rrsisd", tmp_path / "in", tmp_path / "out")
    other = shape != (H, W)
    assert stage(result, "read").get("noted", {}) == ({"mask_stretched": 1} if other else {})
    source = open_layout(str(tmp_path / "in"), "rrsisd")
    (image,) = source.images("test")
    mask = source.read_sample(image, image.triplets[0], *shape).mask
    y, x = (np.arange(n) * m // n for n, m in zip(shape, (H, W), strict=True))
    assert mask.shape == shape and (mask != SQUARE[y][:, x]).sum() <= 50  # an edge may move by a pixel


def test_masks_of_another_size_are_refused(tmp_path):
    rrsisd(tmp_path / "in", {"a": [compressed(SQUARE)]}, (H, 2 * W))
    source = open_layout(str(tmp_path / "in"), "rrsisd")
    (image,) = source.images("test")
    with pytest.raises(BadRecord, match="mask_size"):
        source.read_sample(image, image.triplets[0], H, 2 * W)


def rsvg(root, boxes):
    """One picture with an object for each box, in the order of the file."""
    for folder in ("Annotations", "JPEGImages"):
        (root / folder).mkdir(parents=True)
    Image.fromarray(np.zeros((100, 100, 3), np.uint8)).save(root / "JPEGImages/1.jpg")
    names = ("xmin", "ymin", "xmax", "ymax")
    objects = "".join(
        f"<object><name>ship</name><description>ship {n}</description><bndbox>"
        + "".join(f"<{name}>{v}</{name}>" for name, v in zip(names, box, strict=True))
        + "</bndbox></object>"
        for n, box in enumerate(boxes)
    )
    (root / "Annotations/1.xml").write_text(f"<annotation><filename>1.jpg</filename>{objects}</annotation>")
    (root / "test.txt").write_text("".join(f"{n}\n" for n in range(len(boxes))))


def test_slips_in_boxes_cost_their_own_sample_and_are_named(tmp_path):
    right = (20, 30, 60, 50)
    swapped, past = (60, 50, 20, 30), (20, 80, 60, 140)
    bad = [(500, 600, 700, 900), (20, 30, 20, 30), ("20,5", 30, 60, 50), ("", 1, 2, 3), ("nan", 0, 9, 9)]
    rsvg(tmp_path / "in", [right, swapped, past, *bad])
    result = build("dior-rsvg", tmp_path / "in", tmp_path / "out")
    row = stage(result, "referring")
    assert (row["in"], row["out"], row["dropped"]) == (8, 3, {"coordinates": 5})
    assert any("20,5" in name and "is not four numbers" in name for name in row["named"]["coordinates"])
    (shard,) = (tmp_path / "out" / "shards").glob("*.tar")
    text = shard.read_bytes()
    record = json.loads(text[text.index(b'{"') : text.rindex(b"}") + 1])
    areas = [int(decode_mask(s["mask"], 100, 100).sum()) for s in record["samples"]]
    assert areas == [800, 800, 800]


def earthreason(root, name, pixels, mask, exif=None):
    for part in ("images", "labels", "QAs"):
        (root / "val" / part).mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(root / f"val/images/{name}.png", **({"exif": exif} if exif else {}))
    Image.fromarray(mask * np.uint8(255)).save(root / f"val/labels/{name}.png")
    (root / f"val/QAs/{name}.json").write_text(json.dumps({"questions": ["Where?"], "answer": ["There."]}))


@pytest.mark.parametrize("turn", range(1, 9))
def test_masks_of_a_benchmark_follow_their_turned_picture(turn, tmp_path):
    back = {6: 8, 8: 6}.get(turn, turn)
    exif = Image.Exif()
    exif[0x0112] = turn
    pixels = np.where(SQUARE[..., None] > 0, 220, 60).repeat(3, 2).astype(np.uint8)
    earthreason(tmp_path / "in", "stored", turn_pixels(pixels, back), turn_pixels(SQUARE, back), exif)
    if turn > 4:
        earthreason(tmp_path / "in", "seen", turn_pixels(pixels, back), SQUARE, exif)
    source = open_layout(str(tmp_path / "in"), "earthreason")
    for image in source.images("val"):
        picture = source.read_picture(image)
        assert (picture.pixels() == pixels).all()
        sample = source.read_sample(image, image.triplets[0], H, W, picture.turn)
        assert (sample.mask == SQUARE).all(), image.key
    assert build("earthreason", tmp_path / "in", tmp_path / "out")["samples"]["reasoning"] == 1 + (turn > 4)


@pytest.mark.parametrize("turn", range(1, 9))
def test_prompts_follow_their_turned_picture(turn, tmp_path):
    from pipelines.triplets.base import Triplet as One
    from pipelines.triplets.base import _turned
    from pipelines.triplets.truth import Segments

    back = {6: 8, 8: 6}.get(turn, turn)
    stored = turn_pixels(SQUARE, back)
    height, width = stored.shape
    ys, xs = np.nonzero(stored)
    ends = (xs.min() / width, ys.min() / height, (xs.max() + 1) / width, (ys.max() + 1) / height)
    found = _turned(One("interactive", 0, Segments([]), box=ends), turn)
    assert found.box == pytest.approx((20 / W, 10 / H, 50 / W, 30 / H))
    assert parse_coordinates(found.instruction)[0] == pytest.approx(found.box, abs=1e-3)
    point = ((xs[0] + 0.5) / width, (ys[0] + 0.5) / height)
    ((x, y),) = _turned(One("interactive", 0, Segments([]), points=(point,)), turn).points
    assert SQUARE[int(y * H), int(x * W)] == 1


def test_system_files_and_tabs(tmp_path):
    earthreason(tmp_path / "in", "a", np.zeros((H, W, 3), np.uint8), SQUARE)
    for name in (".DS_Store", "Thumbs.db", "._a.png"):
        for part in ("images", "labels", "QAs"):
            (tmp_path / "in" / "val" / part / name).write_bytes(b"x")
    assert len(open_layout(str(tmp_path / "in"), "earthreason").images("val")) == 1
    for folder in ("images", "masks"):
        (tmp_path / "seg" / folder).mkdir(parents=True)
        Image.fromarray(SQUARE).save(tmp_path / "seg" / folder / "7.tif")
    (tmp_path / "seg" / "output_phrase_test.txt").write_text("7\tthe road  in the north\n")
    (image,) = open_layout(str(tmp_path / "seg"), "refsegrs").images("test")
    assert image.triplets[0].instruction == "the road  in the north"


def test_runs_of_sior_that_are_none_cost_their_own_samples():
    from pipelines.triplets.sior import _triplets

    good, bad = compressed(SQUARE), {"size": [H, W], "counts": 7}
    found = list(_triplets([{"mask": m, "category": "ship"} for m in (good, bad, {})], "x.pkl"))
    assert [t.n for t in found] == [0, 1, 2, 3, 4, 5] and found[0].box is not None
    for triplet in found[2:]:
        with pytest.raises(BadRecord, match="unreadable_mask"):
            triplet.truth.read(None, H, W)
