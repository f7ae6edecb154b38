"""Absent samples from sources as people have them: masks by tables, COCO objects, entries with a kind."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from pycocotools import mask as coco

from jobs.cli import cli
from pipelines.build import BuildConfig, build_store
from pipelines.build.labelled import Labelled
from pipelines.build.sources.registry import open_source
from pipelines.labels.stages import StageCounts
from pipelines.labels.taxonomy import category_id
from pipelines.labels.tiling import Window
from pipelines.store.reader import StoreReader
from pipelines.store.scan import open_all_splits
from tests.release_layouts import block, earthreason, geoseg, picture
from tests.unit.build.layouts import write_image, write_tiff
from unigeoseg.errors import UserError
from unigeoseg.tasks import ABSENT, COLLECTIVE, REASONING, REFERRING

BUILDING, SHIP, COURT, TANK = (
    category_id(name) for name in ("Building", "Ship", "Tennis Court", "Storage Tank")
)
MASKS = """
licence: mine
layouts: [{image: 'images/{name}.png', mask: 'masks/{name}.tif', scene: '{name}'}]
classes:
  - {name: void, value: 0, category: null}
  - {name: rest, value: 9, category: null, background: true}
  - {name: house, value: 1, category: 25 Building}
  - {name: ship, value: 2, category: 79 Ship}
  - {name: court, value: 3, category: 82 Tennis Court}
  - {name: tank, value: 4, category: 81 Storage Tank}
"""
BOXES = """
licence: mine
layouts: [{image: 'images/{name}.png', labels: labels.json, boxes: coco, scene: '{name}'}]
classes:
  - {name: house, category: 25 Building}
  - {name: ship, category: 79 Ship}
  - {name: court, category: 82 Tennis Court}
  - {name: veil, category: null}
"""
SIDE = 64


def labelled(root, config=None):
    """The labels of the first image, whole."""
    source = open_source(str(root / "t.yaml"), root, config or BuildConfig())
    opened = source.read(next(iter(source.items())))
    part = opened.cut(Window(0, 0, opened.height, opened.width))
    counts = StageCounts()
    opened.count(counts)
    return Labelled(part), part, {row["name"]: row for row in counts.rows()}


def write_masks(root, masks, **options):
    for name, mask in masks.items():
        rng = np.random.default_rng(sum(map(ord, name)))
        write_image(root / "images" / f"{name}.png", rng.integers(0, 256, (*mask.shape, 3)).astype(np.uint8))
        (root / "masks").mkdir(exist_ok=True)
        write_tiff(root / "masks" / f"{name}.tif", mask, **options)
    (root / "t.yaml").write_text(MASKS)


def test_ignored_pixels_hide_and_background_does_not(tmp_path):
    mask = np.full((SIDE, SIDE), 9, np.uint8)
    mask[10:30, 10:30] = 1
    write_masks(tmp_path, {"a": mask})
    found, part, rows = labelled(tmp_path)
    assert part.unlabelled == 0 and (part.labels == np.where(mask == 1, BUILDING, 0)).all()
    assert rows["standardise"]["out"] == 400 and rows["standardise"]["dropped"] == {"ignore": SIDE**2 - 400}
    assert found.absent(0.0) == sorted((SHIP, COURT, TANK)) and found.whole() == [BUILDING]
    mask[40:50, 40:50] = 0
    write_masks(tmp_path, {"a": mask})
    found, part, _ = labelled(tmp_path)
    assert part.unlabelled == 100 and found.absent(0.0) == [] and found.absent(0.1)
    mask[mask == 0] = 9
    mask[60, 60] = 2  # one pixel is noise, no region, and there all the same
    write_masks(tmp_path, {"a": mask}, nodata=255)
    found, _, _ = labelled(tmp_path)
    assert found.absent(0.0) == sorted((COURT, TANK))
    assert np.argwhere(found.pixels(SHIP)).tolist() == [[60, 60]]
    mask[0, 0] = 255  # nobody knows what is there
    write_masks(tmp_path, {"a": mask}, nodata=255)
    assert labelled(tmp_path)[0].absent(0.0) == []


def test_a_class_that_occurs_nowhere_is_not_said_to_be_absent(tmp_path):
    masks = {}
    for n in range(6):
        mask = np.full((SIDE, SIDE), 9, np.uint8)
        if n < 4:
            mask[8 : 20 + n, 8:30] = 1 + n % 2
        masks[f"p{n}"] = mask
    write_masks(tmp_path, masks)
    config = BuildConfig(
        workers=0, tile={"size": SIDE}, instruct={"collective": 1, "absent": 1, "diversity_quantile": 0}
    )
    result = build_store(
        str(tmp_path / "t.yaml"), tmp_path, tmp_path / "s", config, progress=False, preview=False
    )
    stages = {row["name"]: row for row in result["stages"]}
    assert stages["balance"]["dropped"]["absent_never_labelled"]
    index = open_all_splits(str(tmp_path / "s"))
    kinds = {}
    for one in StoreReader(index).load(range(len(index))):
        sample = one.sample
        truth = masks[sample.sample_id.split("/")[1].removeprefix("images_")]
        value = {BUILDING: 1, SHIP: 2, COURT: 3, TANK: 4}[sample.category_id]
        kinds.setdefault(sample.subtask, []).append(sample)
        if sample.subtask == ABSENT:
            assert not (truth == value).any() and value in (1, 2) and not sample.mask.any()
        elif sample.subtask == COLLECTIVE:
            assert (sample.mask == (truth == value)).all()
    assert kinds[ABSENT] and kinds[COLLECTIVE]
    # Pictures of nothing have absent samples as well.
    assert {s.sample_id.split("/")[1] for s in kinds[ABSENT]} & {"images_p4", "images_p5"}
    found = CliRunner().invoke(cli, ["data", "lint", str(tmp_path / "s"), "--workers", "1"])
    assert "absent" not in found.output


def write_objects(root, objects):
    rng = np.random.default_rng(0)
    write_image(root / "images" / "a.png", rng.integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8))
    names = ("house", "ship", "court", "veil", "kiosk")
    rows = [
        {"id": n, "image_id": 1, "category_id": names.index(name), "iscrowd": 0} | more
        for n, (name, more) in enumerate(objects)
    ]
    image = {"id": 1, "file_name": "a.png", "width": SIDE, "height": SIDE}
    kinds = [{"id": n, "name": name} for n, name in enumerate(names)]
    content = {"images": [image], "annotations": rows, "categories": kinds}
    (root / "labels.json").write_text(json.dumps(content))
    (root / "t.yaml").write_text(BOXES)


def test_objects_that_are_left_out_or_only_touch_are_not_absent(tmp_path):
    house = ("house", {"bbox": [5, 5, 20, 20]})
    write_objects(tmp_path, [house])
    found, part, _ = labelled(tmp_path)
    assert found.absent(0.0) == sorted((SHIP, COURT)) and found.whole() == [BUILDING]
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[30:40, 30:40] = 1
    crowd = coco.encode(np.asfortranarray(mask))
    crowd = {"size": [SIDE, SIDE], "counts": crowd["counts"].decode()}
    write_objects(tmp_path, [house, ("ship", {"segmentation": crowd, "iscrowd": 1})])
    assert labelled(tmp_path)[0].absent(0.0) == [COURT]
    write_objects(tmp_path, [house, ("ship", {"bbox": [5, 5, 0, 0]})])
    assert labelled(tmp_path)[0].absent(0.0) == [COURT]
    write_objects(tmp_path, [house, ("house", {"segmentation": crowd, "iscrowd": 1})])
    assert labelled(tmp_path)[0].whole() == []  # not all of the houses are known
    # A sliver without a pixel centre has no region, and is there.
    write_objects(tmp_path, [house, ("ship", {"bbox": [40.6, 10, 1.0, 20]})])
    assert SHIP not in labelled(tmp_path)[0].absent(0.0)
    write_objects(tmp_path, [house, ("veil", {"bbox": [40, 40, 10, 10]})])
    found, part, _ = labelled(tmp_path)
    assert found.absent(0.0) == [] and part.unlabelled
    source = open_source(str(tmp_path / "t.yaml"), tmp_path, BuildConfig())
    opened = source.read(next(iter(source.items())))
    assert Labelled(opened.cut(Window(0, 0, 36, SIDE))).absent(0.0) == sorted((SHIP, COURT))
    write_objects(tmp_path, [house] * 60 + [("kiosk", {"bbox": [40, 40, 10, 10]})])
    assert labelled(tmp_path)[0].absent(0.0) == []  # of a class that the table does not know


def test_background_is_for_classes_without_a_category(tmp_path):
    (tmp_path / "t.yaml").write_text(
        MASKS.replace("category: 25 Building}", "category: 25 Building, background: true}")
    )
    with pytest.raises(UserError, match="background is for a class whose category is null"):
        open_source(str(tmp_path / "t.yaml"), tmp_path, BuildConfig())


def kind_entries(root, kind, task="ref", empty=True):
    geoseg(root)
    entries = json.loads((root / "test.json").read_text())
    names = [f"bench/{task}/{part}/9.{form}" for part, form in (("i", "png"), ("m", "png"), ("j", "json"))]
    picture(root / names[0], 0)
    Image.fromarray(block(0) * (0 if empty else 255)).save(root / names[1])
    (root / names[2]).write_text(json.dumps({"question": ["all the blocks"], "reason": []}))
    entry = dict(zip(("img", "mask", "json"), names, strict=True))
    entries.append(entry | ({} if kind is None else {"kind": kind}))
    (root / "test.json").write_text(json.dumps(entries))


def built(root):
    config = BuildConfig(workers=0, max_bad_share=1.0)
    result = build_store("geoseg", root, root / "store", config, progress=False, preview=False)
    index = open_all_splits(str(root / "store"))
    samples = {one.sample_id: one.sample for one in StoreReader(index).load(range(len(index)))}
    return result, samples


@pytest.mark.parametrize(("kind", "empty"), [(ABSENT, True), (COLLECTIVE, False)])
@pytest.mark.parametrize("task", ["ref", "reason"])
def test_an_entry_may_say_its_kind(kind, empty, task, tmp_path):
    kind_entries(tmp_path, kind, task, empty)
    result, samples = built(tmp_path)
    (sample,) = [s for s in samples.values() if s.subtask == kind]
    assert sample.task == {"ref": REFERRING, "reason": REASONING}[task]
    assert sample.mask.any() != empty and sum(result["samples"].values()) == 5
    if task == "ref":  # out and in again
        arguments = ["data", "export", str(tmp_path / "store"), "--form", "release-layout", "--out"]
        found = CliRunner().invoke(cli, [*arguments, str(tmp_path / "out")])
        if found.exit_code == 0:
            assert kind in (tmp_path / "out" / "test.json").read_text()


def test_masks_that_do_not_fit_their_kind_are_named_with_file_row_and_way_out(tmp_path):
    for place, (kind, empty, reason, words) in enumerate(
        (
            (None, True, "empty_mask", 'say "kind": "absent"'),
            (COLLECTIVE, True, "empty_mask", 'say "kind": "absent"'),
            (ABSENT, False, "absent_mask", "empty it, or take the kind out"),
        )
    ):
        root = tmp_path / str(place)
        kind_entries(root, kind, "ref", empty)
        result, samples = built(root)
        assert len(samples) == 4
        (bad,) = result["quarantined"]
        assert bad["reason"] == reason and words in bad["detail"], bad
        assert "test.json, entry 4" in bad["detail"] and "bench/ref/m/9.png" in bad["detail"]


def test_kinds_that_are_none_or_of_no_use_are_refused(tmp_path):
    kind_entries(tmp_path / "a", "all", "ref")
    with pytest.raises(UserError, match="entry 4 has the kind 'all': give 'collective' or 'absent'"):
        list(open_source("geoseg", tmp_path / "a", BuildConfig()).items())
    kind_entries(tmp_path / "b", ABSENT, "intera")
    with pytest.raises(UserError, match="boxes and points mean what is there"):
        list(open_source("geoseg", tmp_path / "b", BuildConfig()).items())
    with pytest.raises(UserError, match="has instructions of its own"):
        open_source("geoseg", tmp_path / "a", BuildConfig(instruct={"absent": 0.5}))


def test_questions_of_earthreason_without_a_target_are_absent(tmp_path):
    earthreason(tmp_path)
    build_store(
        "earthreason", tmp_path, tmp_path / "s", BuildConfig(workers=0), progress=False, preview=False
    )
    index = open_all_splits(str(tmp_path / "s"))
    kinds = {
        one.sample_id: (one.sample.subtask, bool(one.sample.mask.any()))
        for one in StoreReader(index).load(range(3))
    }
    assert sorted(kinds.values()) == [(ABSENT, False), ("none", True), ("none", True)]
    card = json.loads((tmp_path / "s" / "dataset.json").read_text())
    assert card["counts"]["kind"] == {ABSENT: {REASONING: 1}}
