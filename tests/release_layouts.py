"""Small data sets in the layouts of the benchmarks' releases, written by hand with nothing of ours.

Made of random pixels: no file of these data sets but GeoSelect's and RRSIS-D's was at hand.
"""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

#: Height and width of image i: square, wide, tall.
SHAPES = ((40, 40), (24, 60), (60, 25))


def picture(path: Path, i: int) -> tuple[int, int]:
    shape = SHAPES[i % 3]
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(i).integers(0, 255, (*shape, 3), dtype=np.uint8)
    assert cv2.imwrite(str(path), noise)
    return shape


def block(i: int) -> np.ndarray:
    """The target of sample i: a rectangle and a smaller one apart from it."""
    height, width = SHAPES[i % 3]
    mask = np.zeros((height, width), np.uint8)
    mask[4 : 4 + height // 3, 3 : 3 + width // 2] = 1
    mask[-3:-1, -4:-1] = 1
    return mask


def _mask(path: Path, mask: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), mask * 255)


def _text(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def rle(mask: np.ndarray) -> dict[str, Any]:
    runs = coco_mask.encode(np.asfortranarray(mask))
    return {"size": list(mask.shape), "counts": runs["counts"].decode()}


def geoseg(root: Path) -> None:
    entries = []
    for i, task in enumerate(("ref", "intera", "intera", "reason")):
        names = [
            f"bench/{task}/{part}/{i}.{kind}" for part, kind in (("i", "png"), ("m", "png"), ("j", "json"))
        ]
        picture(root / names[0], i)
        _mask(root / names[1], block(i))
        box = "Segment x0,y0=[0.1,0.2], x1,y1=[0.5,0.6]." if i == 1 else "Segment the point (0.25, 0.5)."
        question = box if task == "intera" else "the block at the top"
        _text(root / names[2], {"question": [question, "other"], "reason": ["Because."] if i == 3 else []})
        entries.append(dict(zip(("img", "mask", "json"), names, strict=True)))
    _text(root / "test.json", entries)


def earthreason(root: Path) -> None:
    for i in range(3):
        picture(root / f"val/images/{i}.jpg", i)
        _mask(root / f"val/labels/{i}.png", block(i) * (i != 2))
        _text(
            root / f"val/QAs/{i}.json",
            {"questions": ["where would one wait?"], "answer": [] if i == 2 else ["There."]},
        )


def _refer(root: Path, name: str) -> None:
    images, notes, refs = [], [], []
    for i in range(4):
        picture_of = i % 3  # the last expression shares the first image
        height, width = picture(root / f"images/{name}/JPEGImages/{picture_of:05d}.jpg", picture_of)
        if i < 3:
            images.append({"id": i, "file_name": f"{i:05d}.jpg", "height": height, "width": width})
        segmentation: Any = [rle(block(picture_of))]
        if i == 1:
            segmentation = [[2.0, 2.0, 20.0, 2.0, 20.0, 12.0, 2.0, 12.0], [30, 2, 40, 2, 40, 12, 30, 12]]
        notes.append({"id": 10 + i, "image_id": picture_of, "category_id": 13, "segmentation": segmentation})
        sentence = {"raw": f"The ship {i}", "sent": f"the ship {i}", "sent_id": i, "tokens": ["the", "ship"]}
        split = "val" if i == 2 else "test"
        refs.append(
            {"ref_id": i, "ann_id": 10 + i, "image_id": picture_of, "split": split, "category_id": 13,
             "file_name": f"{picture_of:05d}.jpg", "sentences": [sentence, sentence], "sent_ids": [i]}
        )  # fmt: skip
    content = {"images": images, "annotations": notes, "categories": [{"id": 13, "name": "ship"}]}
    _text(root / name / "instances.json", content)
    (root / name / "refs(unc).p").write_bytes(pickle.dumps(refs, protocol=2))


def rrsisd(root: Path) -> None:
    _refer(root, "rrsisd")


def remotesam(root: Path) -> None:
    _refer(root, "remotesam")


def refsegrs(root: Path, images: int = 3) -> None:
    for i in range(images):
        picture(root / f"images/{i}.tif", i)
        _mask(root / f"masks/{i}.tif", block(i))
    _text(root / "output_phrase_test.txt", "".join(f"{i} vehicle number {i}\n" for i in range(images)))


def risbench(root: Path) -> None:
    for i in range(3):
        picture(root / f"img_rgb/P{i}.png", i)
        _mask(root / f"mask/P{i}.png", block(i))
    _text(root / "output_phrase_val.txt", "".join(f"P{i}.png the dam number {i}\n" for i in range(3)) + "\n")


def dior_rsvg(root: Path) -> None:
    for i in range(3):
        picture(root / f"JPEGImages/{i:05d}.jpg", i)
        objects = "".join(
            f"<object><name>airplane</name><bndbox><xmin>{4 + k}</xmin><ymin>5</ymin><xmax>{20 + k}</xmax>"
            f"<ymax>17</ymax></bndbox><description>plane {i} {k}</description></object>"
            for k in range(2)
        )
        xml = f"<annotation><filename>{i:05d}.jpg</filename>{objects}</annotation>"
        _text(root / f"Annotations/{i:05d}.xml", xml)
    _text(root / "test.txt", "0\n3\n4\n5\n")
    _text(root / "train.txt", "1\n2\n")


def sior(root: Path) -> None:
    for i in range(3):
        picture(root / f"JPEGImages-test/{i:05d}.jpg", i)
        empty = np.zeros(SHAPES[i], np.uint8)
        instances = [
            {
                "mask": rle(m),
                "hbox": np.array([1.0, 2.0, 3.0, 4.0]),
                "category": "ship",
                "label": 13,
                "size": m.sum(),
            }
            for m in (block(i), empty)
        ]
        path = root / f"hbox_segs_trainvaltest_init/ins/{i:05d}.pkl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pickle.dumps(instances))


def geoselect(root: Path) -> None:
    cases = []
    for i in range(3):
        picture(root / f"static/cases/c{i}/input.jpg", i)
        _mask(root / f"static/cases/c{i}/mask_from_gt.png", block(i))
        program = {"op": "argmax", "child": {"op": "select", "type": "gray storage tank"}}
        case = {"id": f"c{i}", "dataset": "RRSIS-D", "type": "image", "sentence": "The tank"}
        cases.append(case | {"program": program, "iou": 50.0 + 10 * i})
    _text(root / "cases.json", cases)


LAYOUTS: dict[str, Callable[[Path], None]] = {
    "geoseg": geoseg,
    "earthreason": earthreason,
    "rrsisd": rrsisd,
    "remotesam": remotesam,
    "refsegrs": refsegrs,
    "risbench": risbench,
    "dior-rsvg": dior_rsvg,
    "sior": sior,
    "geoselect": geoselect,
}
