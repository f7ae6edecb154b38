"""Exports and merges whose names, categories and texts are not the usual ones."""

import io
import json
import tarfile
import warnings

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from pipelines.build import BuildConfig, build_store
from pipelines.build.balance import Balance, Cap, kind_of, smallest_ranks
from pipelines.build.preview import Choice, contact_sheet
from pipelines.curate.export import export_store
from pipelines.curate.lint_text import authors
from pipelines.curate.merge import merge_stores
from pipelines.evaluate.plots import plot_groups
from pipelines.evaluate.sheets import Example, draw_sheet
from pipelines.models.device import peak_flops
from pipelines.store.scan import open_all_splits
from pipelines.store.writer import IndexWriter, ShardWriter, fitting_name, shard_path, write_card
from tests.unit.build.test_own_splits import phrases
from unigeoseg.samples.sample import Sample

RLE = coco.encode(np.asfortranarray(np.ones((8, 8), np.uint8)))
RLE = RLE | {"counts": RLE["counts"].decode()}


def store_of(folder, images, source="mine", config=None):
    """A store written through the package's own writer: (key, split, [(category id, name, instruction)])."""
    index, entries, rows = IndexWriter(str(folder)), [], []
    picture = cv2.imencode(".png", np.full((8, 8, 3), 90, np.uint8))[1].tobytes()
    for split in sorted({split for _, split, _ in images}):
        writer = ShardWriter(str(folder), shard_path(split, 0), split)
        for key, own, samples in images:
            if own != split:
                continue
            document = {
                "key": key, "source": source, "scene": key, "split": split, "licence": "CC0-1.0",
                "image": {"file": f"{key}.png", "height": 8, "width": 8},
                "samples": [
                    {"sample_id": f"{source}/{key}/referring/{n}", "task": "referring", "subtask": "object",
                     "category_id": number, "category": name, "instruction": text, "answer": "",
                     "box": None, "points": None, "mask": RLE, "quality": None}
                    for n, (number, name, text) in enumerate(samples)
                ],
            }  # fmt: skip
            writer.add(document, picture)
        entries.append(writer.close())
        rows += writer.rows
    import pyarrow as pa

    from pipelines.build.card import measured_card
    from pipelines.build.variety import Variety
    from pipelines.store.writer import INDEX_SCHEMA

    table = pa.Table.from_pylist(rows, schema=INDEX_SCHEMA)
    index.add(table)
    index.close()
    write_card(str(folder), measured_card(table, entries, Variety()) | {"config": config or {}, "stages": []})
    return str(folder)


def test_coco_categories_are_the_same_in_all_splits(tmp_path):
    images = [
        ("a", "train", [(0, "zebra", "a"), (25, "House", "b"), (0, "", "c")]),
        ("b", "val", [(0, "apple", "a"), (0, "zebra", "b"), (300, "apple", "c"), (25, "Building", "d")]),
    ]
    export_store(store_of(tmp_path / "s", images), "coco", str(tmp_path / "c"), progress=False)
    read = {
        split: json.loads((tmp_path / f"c/annotations/instances_{split}.json").read_text())
        for split in ("train", "val")
    }
    assert read["train"]["categories"] == read["val"]["categories"]
    names = {row["id"]: row["name"] for row in read["val"]["categories"]}
    assert sorted(names.values()) == ["Building", "apple", "unnamed", "zebra"] and names[25] == "Building"
    used = {
        (split, note["instruction"]): names[note["category_id"]]
        for split in read
        for note in read[split]["annotations"]
    }
    assert used == {
        ("train", "a"): "zebra", ("train", "b"): "Building", ("train", "c"): "unnamed",
        ("val", "a"): "apple", ("val", "b"): "zebra", ("val", "c"): "apple", ("val", "d"): "Building",
    }  # fmt: skip


def test_long_keys_go_into_a_webdataset_and_through_a_renaming_merge(tmp_path):
    long = [f"{'k' * 92}{n}" for n in range(3)]
    one = store_of(tmp_path / "a", [(key, "train", [(25, "Building", key)]) for key in long], "s" * 20)
    two = store_of(tmp_path / "b", [(key, "train", [(25, "Building", key)]) for key in long], "t" * 20)
    export_store(one, "webdataset", str(tmp_path / "w"), progress=False)
    with tarfile.open(tmp_path / "w/train-00000.tar") as tar:
        names = tar.getnames()
        assert len(set(names)) == 9 and max(map(len, names)) <= 100
        found = {json.load(tar.extractfile(n))["sample_id"] for n in names if n.endswith(".json")}
    assert found == {f"{'s' * 20}/{key}/referring/0" for key in long}
    merge_stores([one, two], str(tmp_path / "m"), progress=False, preview=False)
    table = open_all_splits(str(tmp_path / "m")).table
    assert len(set(table["key"].to_pylist())) == 6 == len(set(table["sample_id"].to_pylist()))


def test_names_that_are_cut_stay_different_and_within_the_bytes():
    names = ["x" * n for n in range(1, 200)] + ["ü" * n for n in range(60, 120)]
    cut = [fitting_name(name, 94) for name in names]
    assert len(set(cut)) == len(names) and max(len(name.encode()) for name in cut) <= 94
    assert cut[:94] == names[:94]


def test_a_merge_of_a_merged_store_knows_who_wrote(tmp_path):
    paid = {"rules": {"min_area": 0.005}, "endpoint": {"model": "gpt-4o"}}
    own = {"rules": {"min_area": 0.005}, "endpoint": {"model": None}}
    stores = [
        store_of(tmp_path / name, [(name, "train", [(25, "Building", "x")])], name, config)
        for name, config in (("paid", paid), ("own", own), ("other", own))
    ]
    merge_stores(stores[:2], str(tmp_path / "m"), progress=False, preview=False)
    merge_stores([str(tmp_path / "m"), stores[2]], str(tmp_path / "mm"), progress=False, preview=False)
    expected = {"paid": "endpoint", "own": "writer", "other": "writer"}
    card = json.loads((tmp_path / "mm/dataset.json").read_text())
    assert authors(card) == expected
    assert [origin["sources"] for origin in card["merge"]["stores"]] == [["paid"], ["own"], ["other"]]


def test_a_bmp_file_of_a_benchmark_is_stored_as_png(tmp_path):
    root = phrases(tmp_path / "in", train=(0,), val=(), test=(1,))
    for place in list(root.rglob("0.tif")):
        pixels = cv2.imread(str(place), cv2.IMREAD_UNCHANGED)
        (place.parent / "0.jpg").write_bytes(cv2.imencode(".bmp", pixels)[1].tobytes())
        place.unlink()
    build_store("refsegrs", root, tmp_path / "s", BuildConfig(workers=0), False, preview=False)
    seen = {}
    for shard in (tmp_path / "s/shards").glob("*.tar"):
        with tarfile.open(shard) as tar:
            for member in tar.getmembers():
                if not member.name.endswith(".json"):
                    seen[member.name] = Image.open(io.BytesIO(tar.extractfile(member).read())).format
    assert len(seen) == 2
    assert all(kind == {"png": "PNG", "jpg": "JPEG"}[name.rpartition(".")[2]] for name, kind in seen.items())


DOLLARS = r"the lot between $5 and $\frac{ 7 signs, worth $"


def test_dollar_signs_in_a_text_are_no_formula(tmp_path):
    sample = Sample("a", "referring", "object", DOLLARS, "", np.ones((8, 8), np.uint8), None, None, 0,
                    "$a_{$", "s")  # fmt: skip
    mask = np.ones((8, 8), bool)
    example = Example("best", sample, (8, 8), np.zeros((8, 8, 3), np.uint8), mask, mask, 0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_sheet([example], f"sheet of {DOLLARS}", tmp_path / "sheet.png")
        group = {"gIoU": 0.5, "n": 1, "ci95": {"gIoU": [0.4, 0.6]}}
        plot_groups({DOLLARS: group, "plain": group}, "groups", tmp_path / "groups.png")
    store = store_of(tmp_path / "s", [("a", "train", [(0, DOLLARS, DOLLARS)])], "$x_{$")
    assert contact_sheet(open_all_splits(store), Choice("referring", "$x_{$"))
    from pipelines.curate.pictures import draw_statistics
    from pipelines.curate.statistics import statistics

    assert draw_statistics(statistics(store))


def test_a_cap_counts_names_without_an_id_apart_and_leaves_the_nameless_alone():
    def tile(kind):
        number, name = kind
        samples = [
            {"task": "referring", "category_id": number, "category": name, "sample_id": f"{name}{number}/{n}"}
            for n in range(10)
        ]
        return {"categories": 0, "samples": samples}

    tiles = [tile(kind) for kind in ((0, ""), (0, "car"), (0, "van"), (25, "Building"))]
    cap = Cap(4)
    cap.add(smallest_ranks(tiles, Balance(3), 4))
    balance = Balance(3, 0.0, cap.last())
    assert [len(balance.keep(one)) for one in tiles] == [10, 4, 4, 4]
    assert kind_of(tiles[3]["samples"][0]) == ("referring", 25, "")


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA L4", 121e12), ("NVIDIA L40", 181e12), ("NVIDIA L40S", 362e12), ("NVIDIA L400", None),
        ("NVIDIA A100-SXM4-80GB", 312e12), ("NVIDIA H100 80GB HBM3", 989e12), ("NVIDIA GH200 480GB", None),
    ],
)  # fmt: skip
def test_a_gpu_is_not_taken_for_another_whose_name_begins_alike(name, peak):
    assert peak_flops(name) == peak
