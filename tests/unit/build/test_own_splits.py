"""Whose split an image is in: a benchmark's own one, a seeded one, or none for training."""

import json

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from jobs.cli import cli, run
from pipelines.build import BuildConfig, build_store
from pipelines.build.sources.registry import open_source
from pipelines.build.split import cut_splits, group_digest
from pipelines.config.building import SplitConfig
from pipelines.curate.lint import lint_store
from pipelines.curate.merge import merge_stores
from pipelines.evaluate.data import choose_data, open_index, open_reader
from pipelines.triplets.layouts import open_layout
from tests.built_store import synthetic_store
from tests.unit.build.layouts import write_image
from unigeoseg.errors import UserError

PHRASES = "refsegrs"


@pytest.fixture
def call(capfd):
    """Runs a command; gives its exit code, its JSON, and what it said."""

    def called(*arguments):
        capfd.readouterr()
        with pytest.raises(SystemExit) as caught:
            run(cli, [str(part) for part in arguments])
        found = capfd.readouterr()
        code = caught.value.code or 0
        return code, json.loads(found.out) if code == 0 else None, found.err

    return called


def phrases(root, train=(0, 1, 2), val=(3,), test=(4, 5)):
    """A benchmark of phrases: image i in the lists that name it, two phrases each."""
    layout = next(kind for kind in _layouts() if kind.name == PHRASES)
    for split, numbers in (("train", train), ("val", val), ("test", test)):
        lines = [f"{i} the {split} {what} of {i}" for i in numbers for what in ("block", "square")]
        path = root / f"output_phrase_{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines))
    for i in {*train, *val, *test}:
        noise = np.random.default_rng(i).integers(0, 255, (40, 40, 3), dtype=np.uint8)
        mask = np.zeros((40, 40), np.uint8)
        mask[4:20, 4:20] = 255
        for folder, values in ((layout.image_folder, noise), (layout.mask_folder, mask)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(root / folder / f"{i}.tif"), values)
    return root


def _layouts():
    from pipelines.triplets.layouts import LAYOUTS

    return LAYOUTS.values()


def rows(store):
    return pq.read_table(store / "index.parquet").to_pylist()


def test_a_benchmark_keeps_its_splits_without_being_asked(tmp_path, call):
    root = phrases(tmp_path / "in", train=(0,), val=(), test=range(1, 40))
    code, _, said = call("data", "build", "--source", PHRASES, "--root", root, "--out", tmp_path / "s",
                         "--set", "workers=0", "--json")  # fmt: skip
    assert code == 0, said
    _, card, _ = call("data", "info", tmp_path / "s", "--json")
    assert card["counts"]["split"] == {"test": 2 * 39, "train": 2}
    assert card["own_splits"] == {"test": 39, "train": 1} and card["config"]["split"]["own"] is True


def test_an_image_in_two_splits_stays_in_the_one_held_out(tmp_path):
    root = phrases(tmp_path / "in", train=(0, 1, 2), val=(1, 3), test=(2, 3, 4))
    result = build_store(PHRASES, root, tmp_path / "s", BuildConfig(workers=0), False, preview=False)
    found = {}
    for row in rows(tmp_path / "s"):
        found.setdefault(row["scene"], set()).add(row["split"])
    assert sorted((s[-1], sorted(v)) for s, v in found.items()) == [
        ("0", ["train"]), ("1", ["val"]), ("2", ["test"]), ("3", ["test"]), ("4", ["test"]),
    ]  # fmt: skip
    read = next(row for row in result["stages"] if row["name"] == "read")
    assert read["noted"] == {"also_in_train": 2, "also_in_val": 1}
    assert len(rows(tmp_path / "s")) == 2 * 8  # every sample is there
    assert not lint_store(str(tmp_path / "s"), workers=1)["errors"]
    # The held-out samples have the ids by which the benchmark itself names them.
    source = open_layout(str(root), PHRASES)
    stored = {row["sample_id"]: row["split"] for row in rows(tmp_path / "s")}
    for image in source.images("test"):
        for triplet in image.triplets:
            assert stored[image.sample_id(triplet, source.name)] == "test"


def test_a_benchmark_is_not_split_anew(tmp_path, call):
    root = phrases(tmp_path / "in")
    code, _, said = call("data", "build", "--source", PHRASES, "--root", root, "--out", tmp_path / "s",
                         "--set", "split.own=false", "--json")  # fmt: skip
    assert code == 2 and "split.own=false" in said and "always keep" in said


def test_a_merged_store_still_says_whose_splits_they_are(tmp_path):
    build_store(
        PHRASES, phrases(tmp_path / "in"), tmp_path / "a", BuildConfig(workers=0), False, preview=False
    )
    synthetic_store(tmp_path / "b", 6)
    assert "own_splits" not in json.loads((tmp_path / "b/dataset.json").read_text())
    merge_stores(
        [str(tmp_path / "a"), str(tmp_path / "b")], str(tmp_path / "m"), progress=False, preview=False
    )
    card = json.loads((tmp_path / "m/dataset.json").read_text())
    assert card["own_splits"] == {"test": 2, "train": 3, "val": 1}


@pytest.mark.parametrize(("split", "value"), [("val", 1.0), ("test", 1.0)])
@pytest.mark.parametrize("scenes", [1, 5])
def test_a_store_for_testing_alone(tmp_path, call, split, value, scenes):
    shares = [f"split.val={value if split == 'val' else 0}", f"split.test={value if split == 'test' else 0}"]
    sets = [part for text in (*shares, "workers=0", f"source.scenes={scenes}") for part in ("--set", text)]
    code, _, said = call("data", "build", "--source", "synthetic", "--out", tmp_path / "s", "--json", *sets)
    assert code == 0, said
    assert {row["split"] for row in rows(tmp_path / "s")} == {split}
    assert choose_data(str(tmp_path / "s")).split == split
    with pytest.raises(UserError, match=split):
        open_index(str(tmp_path / "s"), "train")


def test_shares_of_more_than_everything_are_refused(tmp_path, call):
    code, _, said = call("data", "build", "--source", "synthetic", "--out", tmp_path / "s", "--json",
                         "--set", "split.val=0.8", "--set", "split.test=0.5")  # fmt: skip
    assert code == 2 and "more than all scenes" in said


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5, 7, 10, 41])
@pytest.mark.parametrize("val", [0.0, 0.1, 0.25, 0.5, 0.7, 0.9, 1.0])
def test_shares_that_make_one_leave_nothing_for_training(number, val):
    groups = [f"g{i}" for i in range(number)]
    digests = np.array([group_digest(3, g) for g in groups], np.uint64)
    splits = cut_splits(digests, SplitConfig(val=val, test=1 - val), 3)
    counted = [splits.of(g) for g in groups]
    assert "train" not in counted
    if number > 4:
        assert abs(counted.count("val") - val * number) <= 1
    with_rest = cut_splits(digests, SplitConfig(val=min(val, 0.9), test=0.0), 3)
    assert "train" in [with_rest.of(g) for g in groups]


def test_all_splits_of_a_store_are_evaluated_together(tmp_path):
    synthetic_store(tmp_path / "s", 6, split={"val": 0.3, "test": 0.3})
    chosen = choose_data(str(tmp_path / "s"), "all")
    index = open_index(str(tmp_path / "s"), chosen.split)
    assert set(index.table["split"].to_pylist()) == {"train", "val", "test"}
    assert len(index) == len(rows(tmp_path / "s"))
    loaded = open_reader(index).load(range(len(index)))
    assert [one.sample_id for one in loaded] == index.table["sample_id"].to_pylist()
    assert not [one for one in loaded if one.sample is None]
    assert index.fingerprint != open_index(str(tmp_path / "s"), "val").fingerprint


def test_neighbouring_quads_of_chesapeake_stay_together(tmp_path):
    names = ["m_3807503_ne_18_1", "m_3807503_nw_18_1", "m_3807504_nw_18_1", "m_3907503_ne_18_1"]
    for state, split, name in [("de", "train", n) for n in names] + [("md", "test", names[0])]:
        folder = tmp_path / f"{state}_1m_2013_extended-debuffered-{split}_tiles"
        write_image(folder / f"{name}_naip-new.tif", np.ones((20, 20, 4), np.uint8))
        write_image(folder / f"{name}_lc.tif", np.ones((20, 20), np.uint8))
    items = list(open_source("chesapeake", tmp_path, BuildConfig()).items())
    assert [(i.key, i.group, i.split) for i in items] == [
        *((f"de_{name}", name[:7], "train") for name in names),
        (f"md_{names[0]}", "m_38075", "test"),
    ]


TABLE = """
name: mine
licence: mine
layouts:
  - {image: 'images/{name}.png', mask: 'masks/{name}.png'}
classes:
  - {name: nothing, value: 0, category: null}
  - {name: house, value: 1, category: 25 Building}
"""


def test_a_build_that_was_refused_for_its_table_starts_over_with_the_corrected_one(tmp_path, call):
    mask = np.zeros((64, 64), np.uint8)
    mask[8:40, 8:40] = 1
    mask[50:60, 4:60] = 7
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    write_image(tmp_path / "in/images/a.png", noise)
    write_image(tmp_path / "in/masks/a.png", mask)
    table = tmp_path / "mine.yaml"
    table.write_text(TABLE)
    order = ("data", "build", "--source", table, "--root", tmp_path / "in", "--out", tmp_path / "s",
             "--set", "workers=0", "--json")  # fmt: skip
    code, _, said = call(*order)
    assert code == 2 and "value 7" in said, said
    assert (tmp_path / "s/_build/plan.json").exists()
    table.write_text(TABLE + "  - {name: road, value: 7, category: null}\n")
    code, result, said = call(*order)
    assert code == 0 and result["samples"]["interactive"] == 1, said


def test_metres_of_a_pixel_stand_in_the_card_and_outlive_a_merge(tmp_path, call):
    mask = np.zeros((64, 64), np.uint8)
    mask[8:40, 8:40] = 1
    pictures = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), dtype=np.uint8)
    for name, gsd, picture in (("one", "gsd: 0.5\n", pictures[0]), ("two", "", pictures[1])):
        write_image(tmp_path / name / "images/a.png", picture)
        write_image(tmp_path / name / "masks/a.png", mask)
        table = tmp_path / f"{name}.yaml"
        table.write_text(gsd + TABLE.replace("name: mine", f"name: {name}"))
        code, _, said = call("data", "build", "--source", table, "--root", tmp_path / name, "--out",
                             tmp_path / f"store-{name}", "--set", "workers=0", "--json")  # fmt: skip
        assert code == 0, said
    code, _, said = call(
        "data", "merge", tmp_path / "store-one", tmp_path / "store-two", "--out", tmp_path / "s", "--json"
    )
    assert code == 0, said
    card = json.loads((tmp_path / "s/dataset.json").read_text())
    assert {name: row["gsd"] for name, row in card["scene_of"].items()} == {"one": [0.5, 0.5], "two": None}
    wrong = tmp_path / "one.yaml"
    for value, words in (("-1", "greater than 0"), ("[2, 1]", "the smaller first")):
        wrong.write_text(f"gsd: {value}\n" + TABLE)
        code, _, said = call(
            "data", "build", "--source", wrong, "--root", tmp_path / "one", "--out", tmp_path / "x", "--json"
        )
        assert code == 2 and "one.yaml" in said and words in said, said


def test_a_build_that_has_finished_something_is_still_not_replaced(tmp_path, monkeypatch):
    config = BuildConfig(workers=0, block_images=2, source={"scenes": 4})
    from pipelines.build import build

    monkeypatch.setattr(build._Build, "_balance", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        build_store("synthetic", None, tmp_path / "s", config, False, preview=False)
    monkeypatch.undo()
    with pytest.raises(UserError, match="unfinished build of another source or configuration"):
        build_store(
            "synthetic", None, tmp_path / "s", config.model_copy(update={"seed": 9}), False, preview=False
        )
    build_store("synthetic", None, tmp_path / "s", config, False, preview=False)


def test_a_setting_left_open_is_the_same_configuration_as_no(tmp_path):
    """Or a quickstart would build its store anew each time."""
    from pipelines.experiments.quickstart import prepare_store

    build = BuildConfig(workers=0, source={"scenes": 4})
    assert prepare_store(build, str(tmp_path / "s"), progress=False)
    assert not prepare_store(build, str(tmp_path / "s"), progress=False)
    closed = build.model_copy(update={"split": SplitConfig(own=False)})
    assert not prepare_store(closed, str(tmp_path / "s"), progress=False)
