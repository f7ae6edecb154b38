"""COCO instances as a table's source: every form of a segmentation, and what is wrong with one."""

import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from pipelines.build import BuildConfig, build_store
from pipelines.build.sources.registry import open_source
from pipelines.labels.shapes import fill, with_holes
from pipelines.labels.stages import StageCounts
from pipelines.labels.tiling import Window, windows
from pipelines.store.record import BadRecord
from pipelines.store.segmentation import parse_segmentation
from tests.unit.build.layouts import write_image
from unigeoseg.errors import UserError

H, W = 60, 80
TABLE = """
licence: mine
layouts: [{image: 'images/{name}.png', labels: labels.json, boxes: coco, scene: '{name}'}]
classes:
  - {name: ship, category: 79 Ship}
  - {name: buoy, category: null}
"""
SQUARE = [10, 20, 40, 20, 40, 50, 10, 50]


def runs(mask):
    """Lengths of the runs down the columns, the first of zeros."""
    flat = np.concatenate([[0], mask.flatten(order="F"), [2]])
    ends = np.flatnonzero(np.diff(flat))
    lengths = np.diff(np.concatenate([[0], ends])).tolist()
    return lengths


def square(y0=20, x0=10, y1=50, x1=40):
    mask = np.zeros((H, W), np.uint8)
    mask[y0:y1, x0:x1] = 1
    return mask


def compressed(mask):
    rle = coco_mask.encode(np.asfortranarray(mask))
    return {"size": list(mask.shape), "counts": rle["counts"].decode()}


def write(root, annotations, names=("a",), images=None):
    """Pictures, a COCO file and a table; annotations are (image, class id, more)."""
    rng = np.random.default_rng(0)
    for name in names:
        write_image(root / "images" / f"{name}.png", rng.integers(0, 256, (H, W, 3)).astype(np.uint8))
    listed = images or [
        {"id": n, "file_name": f"{name}.png", "width": W, "height": H} for n, name in enumerate(names)
    ]
    rows = [
        {"id": 100 + n, "image_id": image, "category_id": kind, "iscrowd": 0} | more
        for n, (image, kind, more) in enumerate(annotations)
    ]
    kinds = [{"id": 1, "name": "ship"}, {"id": 2, "name": "buoy"}]
    (root / "labels.json").write_text(
        json.dumps({"images": listed, "annotations": rows, "categories": kinds})
    )
    (root / "t.yaml").write_text(TABLE)


def read(root):
    """The regions of the first image, and the row of the stage "boxes"."""
    source = open_source(str(root / "t.yaml"), root, BuildConfig())
    opened = source.read(next(iter(source.items())))
    regions = opened.cut(Window(0, 0, opened.height, opened.width)).regions
    counts = StageCounts()
    opened.count(counts)
    return regions, next(row for row in counts.rows() if row["name"] == "boxes")


@pytest.mark.parametrize(
    "form",
    [
        [SQUARE],
        SQUARE,
        [[[10, 20], [40, 20], [40, 50], [10, 50]]],
        [SQUARE, [11, 31, 11.4, 31.4]],
        [[*SQUARE, 10, 20]],
        compressed(square()),
        [compressed(square())],
        {"size": [H, W], "counts": runs(square())},
        {"size": [H, W], "counts": [float(n) for n in runs(square())]},
        [{"size": [H, W], "counts": runs(square())}],
        [compressed(square(y1=30)), [10, 30, 40, 30, 40, 50, 10, 50]],
    ],
)
def test_every_form_gives_the_same_pixels(tmp_path, form):
    write(tmp_path, [(0, 1, {"segmentation": form})])
    (region,), row = read(tmp_path)
    assert (region.full(H, W) == square()).all()
    assert (region.category_id, region.mask_from) == (79, None)
    assert (row["in"], row["out"], row["dropped"]) == (1, 1, {})


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        ({"size": [H, W], "counts": runs(square())[:-1]}, "unreadable_mask"),
        ({"size": [H, W], "counts": [*runs(square())[:-1], 99999]}, "unreadable_mask"),
        ({"size": [H, W], "counts": [H * W + 5, -5]}, "unreadable_mask"),
        ({"size": [H, W], "counts": [1.5, H * W - 1.5]}, "unreadable_mask"),
        ({"size": [H, W], "counts": compressed(square())["counts"][:-2]}, "unreadable_mask"),
        ({"size": [W, H], "counts": runs(square())}, "mask_size"),
        ({"counts": [1]}, "unreadable_mask"),
        ([[10, 20, 40, 50]], "unreadable_mask"),
        ([[*SQUARE, 40]], "unreadable_mask"),
        ([["10", "a"]], "unreadable_mask"),
        ([[float("nan"), 20, 40, 20, 40, 50]], "unreadable_mask"),
        ("text", "unreadable_mask"),
        ([[200, 20, 240, 20, 240, 50]], "outside"),
        ([[10, 20, 10.1, 20, 10.1, 20.1]], "degenerate"),
        ({"size": [H, W], "counts": [H * W]}, "degenerate"),
    ],
)
def test_an_object_that_cannot_be_used_is_counted_and_named_and_the_others_stay(tmp_path, form, reason):
    write(tmp_path, [(0, 1, {"segmentation": form}), (0, 1, {"segmentation": [SQUARE]})])
    regions, row = read(tmp_path)
    assert [int(r.area) for r in regions] == [900]
    assert (row["in"], row["out"], row["dropped"]) == (2, 1, {reason: 1})
    assert row["named"] == {reason: ["labels.json, a.png: ship 100"]}


def test_holes_turn_the_other_way(tmp_path):
    hole = [20, 30, 20, 40, 30, 40, 30, 30]
    write(tmp_path, [(0, 1, {"segmentation": [SQUARE, hole]})])
    (region,), _ = read(tmp_path)
    expected = square()
    expected[30:40, 20:30] = 0
    assert (region.full(H, W) == expected).all()
    alike = [20, 30, 30, 30, 30, 40, 20, 40]
    rings = parse_segmentation([SQUARE, alike], H, W).rings
    assert fill(with_holes(rings), H, W).sum() == 900
    elsewhere = [60, 5, 60, 15, 70, 15, 70, 5]
    rings = parse_segmentation([SQUARE, elsewhere], H, W).rings
    assert fill(with_holes(rings), H, W).sum() == 1000


def test_touching_objects_stay_two_and_tiles_cut_them(tmp_path):
    left, right = [10, 20, 40, 20, 40, 50, 10, 50], [40, 20, 70, 20, 70, 50, 40, 50]
    write(
        tmp_path,
        [(0, 1, {"segmentation": [left]}), (0, 1, {"segmentation": compressed(square(x0=40, x1=70))})],
    )
    config = BuildConfig.model_validate({"tile": {"size": 32, "stride": 16}})
    source = open_source(str(tmp_path / "t.yaml"), tmp_path, config)
    opened = source.read(next(iter(source.items())))
    whole = [square(), square(x0=40, x1=70)]
    seen = 0
    for window in windows(H, W, config.tile):
        parts = [m[window.slices] for m in whole if m[window.slices].any()]
        found = opened.cut(window).regions
        assert [r.full(window.height, window.width).tolist() for r in found] == [p.tolist() for p in parts]
        seen += len(parts) == 2
    assert seen and fill(with_holes(parse_segmentation([right], H, W).rings), H, W).sum() == 900


def test_crowds_boxes_and_ignored_classes(tmp_path):
    write(
        tmp_path,
        [
            (0, 1, {"segmentation": compressed(square()), "iscrowd": 1}),
            (0, 1, {"bbox": [10, 20, 30, 30], "segmentation": []}),
            (0, 1, {"bbox": [10, 20, 30], "segmentation": None}),
            (0, 2, {"segmentation": [SQUARE]}),
            (0, 1, {"segmentation": [[-10, 20, 40, 20, 40, 50, -10, 50]]}),
        ],
    )
    regions, row = read(tmp_path)
    assert [r.area for r in regions] == [900, 1200] and regions[0].mask_from == "polygon"
    assert row["dropped"] == {"crowd": 1, "ignored_class": 1, "no_segmentation": 1}
    assert row["noted"] == {"clipped": 1, "mask from polygon": 1, "mask from segmentation": 1}


def test_images_are_matched_by_as_much_of_their_path_as_the_file_names(tmp_path):
    listed = [
        {"id": 7, "file_name": "images/a.png"},
        {"id": "x", "file_name": ".\\images\\b.png", "width": 0, "height": None},
        {"id": 9, "file_name": "/data/of/mine/c.png"},
    ]
    write(tmp_path, [(n, 1, {"segmentation": [SQUARE]}) for n in (7, "x", 9)], ("a", "b", "c"), listed)
    items = list(open_source(str(tmp_path / "t.yaml"), tmp_path, BuildConfig()).items())
    assert [(i.key, i.group, len(i.detail["objects"])) for i in items] == [
        (f"images_{n}", n, 1) for n in "abc"
    ]


def build(root, **more):
    config = BuildConfig.model_validate({"workers": 0} | more)
    table = str(root / "t.yaml")
    return build_store(table, root, root / "out", config, progress=False, preview=False, force=True)


def test_pictures_that_are_missing_are_named_and_stop_the_build(tmp_path):
    listed = [{"id": n, "file_name": f"{name}.png"} for n, name in enumerate("abz")]
    write(tmp_path, [(0, 1, {"segmentation": [SQUARE]}), (2, 1, {"segmentation": [SQUARE]})], "ab", listed)
    with pytest.raises(UserError, match=r"1 of 3 images cannot be used: .*labels\.json.*'z\.png' is not"):
        build(tmp_path)
    result = build(tmp_path, max_bad_share=0.4)
    assert [bad["reason"] for bad in result["quarantined"]] == ["missing_image"]
    write(tmp_path, [(0, 1, {"segmentation": [SQUARE]})], "abc", listed[:2])
    with pytest.raises(UserError, match=r"c\.png.*labels\.json does not list it"):
        build(tmp_path)
    write(tmp_path, [(5, 1, {"segmentation": [SQUARE]})], "abc")
    with pytest.raises(UserError, match=r"1 annotations belong to image ids .* the first is 5"):
        build(tmp_path)


def test_a_picture_of_another_size_and_an_unknown_class(tmp_path):
    listed = [{"id": 0, "file_name": "a.png", "width": 4 * W, "height": 4 * H}]
    write(tmp_path, [(0, 1, {"segmentation": [SQUARE]})], images=listed)
    with pytest.raises(UserError, match=r"a\.png.*on a picture of 320x240 pixels, this one is 80x60"):
        build(tmp_path)
    write(tmp_path, [(0, 5, {"segmentation": [SQUARE]})])
    with pytest.raises(UserError, match=r"labels\.json: class 'category 5' .*add it to the classes"):
        build(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("{", "no readable JSON"),
        ("[]", "no COCO file"),
        ('{"images": [], "annotations": []}', "no list 'categories'"),
        ('{"images": [{"id": 1}], "annotations": [], "categories": []}', "no id or no file_name"),
        (
            '{"images": [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}], "annotations": [],'
            '"categories": []}',
            "two images have the id 1",
        ),
        ('{"images": [7], "annotations": [], "categories": []}', "entry 0 of 'images' is no mapping"),
    ],
)
def test_files_that_are_no_coco_file(tmp_path, text, message):
    write(tmp_path, [])
    (tmp_path / "labels.json").unlink() if text is None else (tmp_path / "labels.json").write_text(text)
    with pytest.raises(UserError, match=message):
        build(tmp_path)


def test_runs_are_never_random(tmp_path):
    short = {"size": [H, W], "counts": runs(square())[:-1]}
    with pytest.raises(BadRecord, match="the runs cover 2390 pixels, the picture of 80x60 has 4800"):
        parse_segmentation(short, H, W)


def test_real_instances_agree_with_pycocotools(shared):
    root = shared / "data" / "nwpu_vhr10"
    source = open_source(str(root.with_name("nwpu_vhr10.yaml")), root, BuildConfig())
    items = list(source.items())
    content = json.loads((root / "instances.json").read_text())
    assert len(items) == 518 and sum(len(i.detail["objects"]) for i in items) == 3175
    objects = {row["id"]: row for row in content["annotations"]}
    for item in items[::100]:
        opened = source.read(item)
        regions = opened.cut(Window(0, 0, opened.height, opened.width)).regions
        assert len(regions) == len(item.detail["objects"]) and item.group == item.scene
        for region, one in zip(regions, item.detail["objects"], strict=True):
            rles = coco_mask.frPyObjects(objects[one["id"]]["segmentation"], opened.height, opened.width)
            truth = coco_mask.decode(coco_mask.merge(rles)).astype(bool)
            mine = region.full(opened.height, opened.width).astype(bool)
            # Theirs rounds corners to pixels, ours takes centres: only the edge may differ.
            assert (truth & mine).sum() / (truth | mine).sum() > 0.8


def test_exports_of_labelling_tools(tmp_path):
    """CVAT writes a drawn mask as a crowd with uncompressed runs; Label Studio writes polygons and runs."""
    drawn = {"segmentation": {"size": [H, W], "counts": runs(square())}, "iscrowd": 1, "area": 900.0}
    attributes = {"attributes": {"occluded": False}, "bbox": [10, 20, 30, 30]}
    write(tmp_path, [(0, 1, drawn | attributes)])
    _, row = read(tmp_path)
    assert row["dropped"] == {"crowd": 1}
    (tmp_path / "t.yaml").write_text(TABLE.replace("boxes: coco,", "boxes: coco, crowds: true,"))
    (region,), row = read(tmp_path)
    assert (region.full(H, W) == square()).all() and row["dropped"] == {}
    listed = [{"id": 0, "file_name": "images/a.png", "width": W, "height": H}]
    outline = {"segmentation": [SQUARE], "ignore": 0, "iscrowd": 0, "area": 900.0, "bbox": [10, 20, 30, 30]}
    write(tmp_path, [(0, 1, outline)], images=listed)
    (region,), _ = read(tmp_path)
    assert (region.full(H, W) == square()).all()
    (tmp_path / "t.yaml").write_text(TABLE.replace("boxes: coco,", "boxes: voc, crowds: true,"))
    with pytest.raises(UserError, match="crowds is for"):
        read(tmp_path)
