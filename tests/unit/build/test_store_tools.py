"""Merging and exporting stores: nothing is lost or changed, read back by programs that are not ours."""

import hashlib
import io
import json
import shutil
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset as wds
from PIL import Image
from pycocotools import mask as coco
from pycocotools.coco import COCO

from jobs.cli import cli
from pipelines.build import BuildConfig, build_store
from pipelines.curate.lint import lint_store
from pipelines.curate.merge import merge_stores
from pipelines.triplets.folder import Folder
from pipelines.triplets.geoseg import GeoSegSource
from tests.built_store import synthetic_store
from tests.unit.build.test_bad_sources import TABLE, pair
from unigeoseg.errors import UserError


def build_own(folder, name, images=5):
    (folder / f"{name}.yaml").write_text(TABLE.replace("licence: mine", f"licence: {name}"))
    for n in range(images):
        pair(folder / f"{name}-in", "n" * (n + 1), shift=0)
    config = BuildConfig(workers=0, instruct={"diversity_quantile": 0.0}, split={"val": 0.3})
    out = folder / name
    build_store(
        str(folder / f"{name}.yaml"), folder / f"{name}-in", out, config, progress=False, preview=False
    )
    return out


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """A synthetic store, and two of one's own whose images have the same names."""
    folder = tmp_path_factory.mktemp("stores")
    synthetic_store(folder / "synthetic", 6, split={"val": 0.3})
    return [folder / "synthetic", build_own(folder, "mine"), build_own(folder, "other")]


def samples_of(store):
    """Everything of each sample by id, straight from the tars."""
    found = {}
    for path in sorted((store / "shards").iterdir()):
        with tarfile.open(path) as tar:
            members = {m.name: tar.extractfile(m).read() for m in tar}
        for name, body in members.items():
            if name.endswith(".json"):
                record = json.loads(body)
                image = members[record["image"]["file"]]
                for sample in record["samples"]:
                    facts = {k: record[k] for k in ("source", "scene", "split", "licence")}
                    assert sample["sample_id"] not in found
                    found[sample["sample_id"]] = sample | facts | {"pixels": hashlib.md5(image).hexdigest()}
    return found


def bytes_of(store):
    files = [f for f in sorted(store.rglob("*")) if f.is_file()]
    return {str(f.relative_to(store)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def merge(stores, out, **options):
    return merge_stores([str(s) for s in stores], str(out), progress=False, preview=False, **options)


def test_a_merged_store_holds_every_sample_as_it_was(stores, tmp_path):
    result = merge(stores, tmp_path / "all", shard_bytes=60_000)
    wanted = {}
    for store in stores:
        wanted |= samples_of(store)
    assert samples_of(tmp_path / "all") == wanted and sum(result["samples"].values()) == len(wanted)
    # The last two stores draw the same pictures, and say so.
    errors = lint_store(str(tmp_path / "all"), progress=False)["errors"]
    assert {e["reason"].partition(":")[0] for e in errors} == {"duplicate_image"} and len(errors) == 5
    rows = pq.read_table(tmp_path / "all" / "index.parquet").to_pylist()
    assert len({(r["key"], r["source"]) for r in rows}) == len({r["key"] for r in rows})
    assert result["licences"].keys() == {*(r["licence"] for r in rows)} and len(result["licences"]) == 3
    card = json.loads((tmp_path / "all" / "dataset.json").read_text())
    assert result["shards"] == len(card["shards"]) > 4 and sum(s["samples"] for s in card["shards"]) == len(
        rows
    )
    read = next(row for row in card["stages"] if row["name"] == "read")
    assert (read["in"], read["out"]) == (16, 16)


def test_merged_bytes_depend_on_the_stores_alone(stores, tmp_path):
    merge(stores[:2], tmp_path / "first")
    moved = [shutil.copytree(s, tmp_path / f"moved{n}") for n, s in enumerate(stores[:2])]
    merge(moved, tmp_path / "again")
    assert bytes_of(tmp_path / "first") == bytes_of(tmp_path / "again")


def test_an_interrupted_merge_is_begun_again(stores, tmp_path, monkeypatch):
    merge(stores[:2], tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr("pipelines.curate.merge.keep_shard", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            merge(stores[:2], tmp_path / "s")
    merge(stores[:2], tmp_path / "s")
    assert bytes_of(tmp_path / "s") == bytes_of(tmp_path / "whole")


def test_ids_that_occur_twice_are_named_or_the_first_stays(stores, tmp_path):
    copy = shutil.copytree(stores[1], tmp_path / "copy")
    with pytest.raises(UserError, match=r"ids occur more than once in .*: mine/.*--on-duplicate first"):
        merge([stores[1], copy], tmp_path / "s")
    assert not (tmp_path / "s").exists()
    result = merge([stores[0], stores[1], copy], tmp_path / "s", on_duplicate="first")
    assert samples_of(tmp_path / "s") == samples_of(stores[0]) | samples_of(stores[1])
    assert result["duplicates"] == len(samples_of(stores[1]))


def change_card(store, **changes):
    card = json.loads((store / "dataset.json").read_text())
    (store / "dataset.json").write_text(json.dumps(card | changes))


def test_what_cannot_be_merged(stores, tmp_path):
    a, b = stores[0], shutil.copytree(stores[1], tmp_path / "b")
    with pytest.raises(UserError, match="is one of the stores"):
        merge([a, b], b)
    with pytest.raises(UserError, match="is given twice"):
        merge([a, a], tmp_path / "s")
    with pytest.raises(UserError, match="already holds a finished store"):
        merge([a, b], stores[2])
    change_card(b, schema_version=7)
    with pytest.raises(UserError, match="schema version 7, this program writes 1"):
        merge([a, b], tmp_path / "s")
    change_card(b, schema_version=1)
    shard = next((b / "shards").glob("train-*.tar"))
    shard.write_bytes(shard.read_bytes().replace(b'"size":[80,90]', b'"size":[90,80]', 1))
    with pytest.raises(UserError, match=r"the mask of mine/\S+ is \[90, 80\], its image \[80, 90\]"):
        merge([a, b], tmp_path / "s")
    rows = pq.read_table(b / "index.parquet").to_pylist()
    split = {"train": "val", "val": "train"}
    table = pa.Table.from_pylist(
        [r | {"split": split[r["split"]], "sample_id": r["sample_id"] + "x"} for r in rows]
    )
    pq.write_table(table, b / "index.parquet")
    with pytest.raises(UserError, match=r"5 scenes would be .*, such as 'n+' of mine in train and val"):
        merge([stores[1], b], tmp_path / "s")


def export(capfd, store, form, out):
    with pytest.raises(SystemExit) as ended:
        from jobs.cli import run

        run(cli, ["data", "export", str(store), "--to", form, "--out", str(out), "--json"])
    assert ended.value.code == 0
    return json.loads(capfd.readouterr().out)


def decoded(sample):
    return coco.decode(sample["mask"] | {"counts": sample["mask"]["counts"].encode()})


def test_webdataset_reads_the_export(stores, tmp_path, capfd):
    wanted = samples_of(stores[0])
    result = export(capfd, stores[0], "webdataset", tmp_path / "w")
    found = {}
    for tar in sorted((tmp_path / "w").glob("*.tar")):
        for record in wds.WebDataset(str(tar), shardshuffle=False).decode("rgb8"):
            sample = wanted[record["json"]["sample_id"]]
            assert tar.name.startswith(sample["split"])
            assert record["image.png"].shape == (128, 128, 3)
            assert np.array_equal(record["mask.png"][..., 0], decoded(sample) * 255)
            found[sample["sample_id"]] = record["json"]["instruction"], record["json"]["answer"]
    assert found == {name: (s["instruction"], s["answer"]) for name, s in wanted.items()}
    assert result["samples"] == len(wanted)


def test_pycocotools_reads_the_export(stores, tmp_path, capfd):
    wanted = samples_of(stores[1])
    export(capfd, stores[1], "coco", tmp_path / "c")
    found = set()
    for split in ("train", "val"):
        read = COCO(str(tmp_path / "c" / "annotations" / f"instances_{split}.json"))
        for note in read.loadAnns(read.getAnnIds()):
            sample = wanted[note["sample_id"]]
            mask = decoded(sample)
            assert np.array_equal(read.annToMask(note), mask) and sample["split"] == split
            ys, xs = np.nonzero(mask)
            box = [xs.min(), ys.min(), xs.max() + 1 - xs.min(), ys.max() + 1 - ys.min()]
            assert note["bbox"] == box and note["area"] == mask.sum()
            assert read.loadCats(note["category_id"])[0]["name"] == sample["category"]
            assert (note["instruction"], note["task"]) == (sample["instruction"], sample["task"])
            (image,) = read.loadImgs(note["image_id"])
            data = (tmp_path / "c" / "images" / split / image["file_name"]).read_bytes()
            assert hashlib.md5(data).hexdigest() == sample["pixels"]
            assert Image.open(io.BytesIO(data)).size == (image["width"], image["height"])
            found.add(note["sample_id"])
    assert found == set(wanted)


def test_the_release_layouts_reader_reads_the_export(stores, tmp_path, capfd):
    wanted = samples_of(stores[0])
    export(capfd, stores[0], "release-layout", tmp_path / "r")
    source = GeoSegSource(GeoSegSource.find(Folder(str(tmp_path / "r"))))
    found = []
    for split in source.splits():
        for image in source.images(split):
            height, width = source.read_image(image).shape[:2]
            for triplet in image.triplets:
                read = source.read_sample(image, triplet, height, width)
                found.append((split, read.task, read.instruction, read.answer, read.mask.tobytes()))
                if read.task == "interactive":
                    near = [s for s in wanted.values() if s["instruction"] == read.instruction]
                    assert any(
                        np.allclose(s["box"] or s["points"], read.box or read.points, atol=6e-4) for s in near
                    )
    facts = ("split", "task", "instruction", "answer")
    assert sorted(found) == sorted(
        (*(s[k] for k in facts), np.ascontiguousarray(decoded(s)).tobytes()) for s in wanted.values()
    )


def test_an_export_never_writes_into_other_files(stores, tmp_path):
    from pipelines.curate.export import export_store

    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="holds files already"):
        export_store(str(stores[0]), "coco", str(tmp_path), progress=False)
