"""Each release layout: recognised, read exactly, and refused by name where files are missing or hostile."""

import json
import os
import pickle
from collections import Counter

import numpy as np
import pytest

from pipelines.labels.taxonomy import category_id
from pipelines.triplets.categories import taxonomy_id
from pipelines.triplets.geoseg import prompt_of
from pipelines.triplets.layouts import open_layout, recognise
from pipelines.triplets.truth import interior_point
from tests.release_layouts import LAYOUTS, SHAPES, block
from unigeoseg.errors import UserError

#: Split with the most samples, number of its samples by task, and how often each image stands.
EXPECTED = {
    "geoseg": ("test", {"referring": 1, "interactive": 2, "reasoning": 1}),
    "earthreason": ("val", {"reasoning": 3}),
    "rrsisd": ("test", {"referring": 3}),
    "remotesam": ("test", {"referring": 3}),
    "refsegrs": ("test", {"referring": 3}),
    "risbench": ("val", {"referring": 3}),
    "dior-rsvg": ("test", {"referring": 4}),
    "sior": ("test", {"interactive": 6}),
    "geoselect": ("test", {"referring": 3}),
}


def made(name, tmp_path):
    LAYOUTS[name](tmp_path)
    return tmp_path


def samples(source, split):
    for image in source.images(split):
        pixels = source.read_image(image)
        for triplet in image.triplets:
            yield source.read_sample(image, triplet, *pixels.shape[:2]), pixels


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_layout_is_recognised_and_read(name, tmp_path):
    source = recognise(str(made(name, tmp_path)))
    assert source is not None and source.name == name
    split, tasks = EXPECTED[name]
    assert split in source.splits()
    read = list(samples(source, split))
    assert Counter(s.task for s, _ in read) == tasks
    assert len({s.sample_id for s, _ in read}) == len(read)
    for sample, pixels in read:
        assert sample.mask.shape == pixels.shape[:2] in SHAPES
        assert sample.mask.dtype == np.uint8 and set(np.unique(sample.mask)) <= {0, 1}
        assert sample.instruction and sample.sample_id.startswith(f"{name}/")
        assert (sample.task == "interactive") == bool(sample.box or sample.points)
        of = SHAPES.index(pixels.shape[:2])
        if name in ("geoseg", "refsegrs", "risbench", "geoselect", "sior"):
            np.testing.assert_array_equal(sample.mask, block(of))


def test_geoseg_takes_task_from_the_path_and_prompt_from_the_question(tmp_path):
    read = {s.sample_id: s for s, _ in samples(open_layout(str(made("geoseg", tmp_path)), "geoseg"), "test")}
    box, point = (read[f"geoseg/bench_intera_i_{i}/interactive/0"] for i in (1, 2))
    assert box.box == (0.1, 0.2, 0.5, 0.6) and box.subtask == "box"
    assert point.points == ((0.25, 0.5),) and point.subtask == "point"  # the form that the paper prints
    assert read["geoseg/bench_reason_i_3/reasoning/0"].answer == "Because."
    assert prompt_of("box (0.1, 0.2), (0.3,0.4)") == ((0.1, 0.2, 0.3, 0.4), None)
    assert prompt_of("the two ships") == (None, None)


def test_earthreason_without_target_has_an_empty_mask(tmp_path):
    read = [s for s, _ in samples(open_layout(str(made("earthreason", tmp_path)), "earthreason"), "val")]
    assert [int(s.mask.any()) for s in read] == [1, 1, 0]
    assert read[2].answer == "There is no target object in the image."


def test_rrsisd_reads_runs_and_polygons_and_shares_images(tmp_path):
    source = open_layout(str(made("rrsisd", tmp_path)), "rrsisd")
    assert [len(image.triplets) for image in source.images("test")] == [2, 1]
    read = [s for s, _ in samples(source, "test")]
    np.testing.assert_array_equal(read[0].mask, block(0))
    assert read[0].instruction == "The ship 0" and read[0].category_id == category_id("Ship")
    polygons = read[2].mask  # two of 18 x 10 and 10 x 10 pixels
    assert 240 < polygons.sum() < 330 and polygons[6, 10] and polygons[6, 35] and not polygons[6, 25]


def test_dior_rsvg_counts_objects_over_the_annotation_files(tmp_path):
    source = open_layout(str(made("dior-rsvg", tmp_path)), "dior-rsvg")
    read = [s for s, _ in samples(source, "test")]
    assert [s.instruction for s in read] == ["plane 0 0", "plane 1 1", "plane 2 0", "plane 2 1"]
    expected = np.zeros(SHAPES[0], np.uint8)
    expected[5:17, 4:20] = 1
    np.testing.assert_array_equal(read[0].mask, expected)
    assert source.boxes


def test_sior_prompts_lie_on_the_target(tmp_path):
    for sample, _ in samples(open_layout(str(made("sior", tmp_path)), "sior"), "test"):
        height, width = sample.mask.shape
        rows, columns = np.nonzero(sample.mask)
        if sample.box:
            tight = (
                columns.min() / width,
                rows.min() / height,
                (columns.max() + 1) / width,
                (rows.max() + 1) / height,
            )
            assert sample.box == pytest.approx(tight)
        else:
            ((x, y),) = sample.points
            assert sample.mask[int(y * height), int(x * width)] == 1
            assert f"{x:.3f},{y:.3f}" in sample.instruction


def test_interior_point_is_the_deepest_pixel():
    mask = np.zeros((9, 12), np.uint8)
    mask[1:8, 2:9] = 1
    assert interior_point(mask) == ((5 + 0.5) / 12, (4 + 0.5) / 9)
    full = np.ones((5, 5), np.uint8)  # the border of the image bounds a target too
    assert interior_point(full) == (0.5, 0.5)


@pytest.mark.parametrize(
    ("name", "lost"),
    [
        ("geoseg", "bench/ref/m/0.png"),
        ("earthreason", "val/labels/1.png"),
        ("rrsisd", "images/rrsisd/JPEGImages/00001.jpg"),
        ("rrsisd", "rrsisd/instances.json"),
        ("rrsisd", "rrsisd/refs(unc).p"),
        ("refsegrs", "masks/2.tif"),
        ("risbench", "img_rgb/P0.png"),
        ("dior-rsvg", "JPEGImages/00001.jpg"),
        ("sior", "hbox_segs_trainvaltest_init/ins/00002.pkl"),
        ("geoselect", "static/cases/c1/mask_from_gt.png"),
    ],
)
def test_missing_files_are_listed(name, lost, tmp_path):
    (made(name, tmp_path) / lost).unlink()
    with pytest.raises(UserError) as caught:
        source = open_layout(str(tmp_path), name)
        for split in source.splits():
            source.images(split)
    assert lost in str(caught.value) and "lacks 1 of" in str(caught.value)


def test_missing_annotations_of_dior_rsvg_are_noticed(tmp_path):
    (made("dior-rsvg", tmp_path) / "Annotations/00002.xml").unlink()
    with pytest.raises(UserError, match="names object 5, but Annotations holds 4"):
        open_layout(str(tmp_path), "dior-rsvg").images("test")


def test_paths_cannot_leave_the_folder(tmp_path):
    entries = json.loads((made("geoseg", tmp_path) / "test.json").read_text())
    entries[0]["mask"] = "../../etc/passwd"
    (tmp_path / "test.json").write_text(json.dumps(entries))
    with pytest.raises(UserError, match="not a path inside"):
        open_layout(str(tmp_path), "geoseg").images("test")


class _Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_hostile_pickles_and_xml_are_refused(tmp_path):
    marker = tmp_path / "ran"
    (made("rrsisd", tmp_path / "a") / "rrsisd/refs(unc).p").write_bytes(pickle.dumps([_Bomb(marker)]))
    with pytest.raises(UserError, match="nothing was executed"):
        open_layout(str(tmp_path / "a"), "rrsisd")
    assert not marker.exists()
    note = made("dior-rsvg", tmp_path / "b") / "Annotations/00000.xml"
    text = '<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>'
    for data in (
        text.encode(),
        text.encode("utf-16"),
        f'<?xml version="1.0" encoding="utf-16"?>{text}'.encode("utf-16"),
    ):
        note.write_bytes(data)
        with pytest.raises(UserError, match="XML entities"):
            open_layout(str(tmp_path / "b"), "dior-rsvg").images("test")
    for data in (b'<?xml version="1.0" encoding="nonsense"?><annotation/>', b"\xff\xfe<", b""):
        note.write_bytes(data)
        with pytest.raises(UserError, match="is no readable XML"):
            open_layout(str(tmp_path / "b"), "dior-rsvg").images("test")


def test_json_that_is_nested_without_end_is_refused(tmp_path):
    (made("geoseg", tmp_path) / "test.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match="is no JSON"):
        open_layout(str(tmp_path), "geoseg").images("test")


def test_unknown_layouts_and_folders_say_what_is_there(tmp_path):
    assert recognise(str(tmp_path)) is None
    with pytest.raises(UserError, match="choose one of geoselect, rrsisd"):
        open_layout(str(tmp_path), "nosuch")
    (tmp_path / "readme.txt").write_text("x")
    with pytest.raises(UserError, match=r"RefSegRS.*holds readme\.txt"):
        open_layout(str(tmp_path), "refsegrs")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("golffield", "Golf Course"),
        ("huge gray chimney", "Chimney"),
        ("Boeing 747", "Boeing 747"),
        ("cat", ""),
    ],
)
def test_category_names(name, expected):
    assert taxonomy_id(name) == (category_id(expected) if expected else 0)
