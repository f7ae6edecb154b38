import io
import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from PIL import Image

from jobs.cli import cli
from pipelines.curate.lint import lint_store
from tests.built_store import synthetic_store
from unigeoseg.errors import UserError


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    return synthetic_store(tmp_path_factory.mktemp("lint") / "store", 6)


@pytest.fixture
def store(clean, tmp_path):
    return shutil.copytree(clean, tmp_path / "store")


def reasons(store):
    return [e["reason"].split(":")[0] for e in lint_store(str(store), progress=False)["errors"]]


def change_rows(store, change):
    rows = pq.read_table(store / "index.parquet").to_pylist()
    schema = pq.read_schema(store / "index.parquet")
    pq.write_table(pa.Table.from_pylist(change(rows), schema=schema), store / "index.parquet")


def test_a_fresh_store_is_clean(clean):
    result = lint_store(str(clean), progress=False)
    assert result["errors"] == [] and result["records"] > 30


def test_damaged_pixels_and_wrong_areas_are_found(store):
    shard = next((store / "shards").glob("train-*.tar"))
    content = bytearray(shard.read_bytes())
    content[600:1200] = b"\0" * 600
    shard.write_bytes(bytes(content))
    rows = pq.read_table(store / "index.parquet").to_pylist()
    first = [r for r in rows if r["shard"].startswith("shards/train") and r["offset"] == 0]
    found = lint_store(str(store), progress=False)["errors"]
    assert {e["sample_id"] for e in found} == {r["sample_id"] for r in first} | {f"shards/{shard.name}"}
    assert [e["reason"].split(":")[0] for e in found if e["sample_id"].startswith("shards/")] == ["checksum"]
    change_rows(store, lambda rows: [r | {"mask_area": r["mask_area"] + 1} for r in rows])
    assert reasons(store).count("mask_area") == len(rows) - len(first)
    change_rows(store, lambda rows: [r | {"box_area": r["box_area"] + 1} for r in rows])
    assert reasons(store).count("box_area") == len(rows) - len(first)


def test_wrong_coordinates_and_masks_are_found(store):
    shard = next((store / "shards").glob("train-*.tar"))
    content = shard.read_bytes()
    assert b'"box":[0.' in content
    shard.write_bytes(content.replace(b'"box":[0.', b'"box":[1.', 1))
    assert "coordinates" in reasons(store)
    shard.write_bytes(content.replace(b'"size":[128,128]', b'"size":[129,128]', 1))
    assert reasons(store) == ["mask_size", "checksum"]


def test_duplicates_and_scenes_in_two_splits_are_found(store):
    change_rows(store, lambda rows: [*rows[:1], *rows])
    assert sorted(set(reasons(store))) == ["duplicate"]
    scene = pq.read_table(store / "index.parquet").to_pylist()[0]["scene"]
    change_rows(
        store, lambda rows: [*(r | ({"scene": scene} if r["split"] == "val" else {}) for r in rows[1:])]
    )
    assert set(reasons(store)) == {"split", "index"}


def test_lost_shards_foreign_categories_and_same_pictures_are_found(store, tmp_path):
    shard = next((store / "shards").glob("train-*.tar"))
    content = shard.read_bytes()
    shard.write_bytes(
        content.replace(b'"category_id":25', b'"category_id":99', 1).replace(b'"val"', b'"vil"')
    )
    found = reasons(store)
    assert "checksum" in found
    shard.write_bytes(content[: len(content) // 2])
    assert {"shard_size", "unreadable_record"} <= set(reasons(store))
    shard.unlink()
    assert reasons(store) == ["shard_missing"]
    shard.write_bytes(content)
    change_rows(store, lambda rows: [r for r in rows if r["n"] > 0 or r["key"] != rows[0]["key"]])
    assert reasons(store) == ["index"]


def test_several_processes_find_the_same(store, monkeypatch):
    monkeypatch.setattr("pipelines.curate.lint._ALONE", 0)
    change_rows(store, lambda rows: [r | {"mask_area": r["mask_area"] + (r["n"] == 0)} for r in rows])
    one, two = (lint_store(str(store), progress=False, workers=n) for n in (1, 2))
    assert one == two and len(one["errors"]) == 6


def test_area_limits_are_those_of_the_card(store):
    card = json.loads((store / "dataset.json").read_text())
    card["config"]["rules"]["min_area"] = 0.05
    (store / "dataset.json").write_text(json.dumps(card))
    assert set(reasons(store)) == {"area"}


def run(*arguments):
    return CliRunner().invoke(cli, ["data", *map(str, arguments)])


def test_commands(clean, tmp_path):
    out = tmp_path / "new"
    sets = ("--set", "source.scenes=4", "--set", "build.workers=0")
    dry = run("build", "--source", "synthetic", "--out", out, *sets, "--dry-run", "--json")
    assert json.loads(dry.stdout)["images"] == 4 and not out.exists()
    built = run("build", "--source", "synthetic", "--out", out, *sets, "--json")
    document = json.loads(built.stdout)
    assert set(document) >= {"stages", "samples", "store"} and built.exit_code == 0
    assert all(set(s) >= {"name", "in", "out", "dropped"} for s in document["stages"])
    assert json.loads(run("info", out, "--json").stdout) == json.loads((out / "dataset.json").read_text())
    assert "samples on 4 images" in run("info", out).stdout
    lint = run("lint", out, "--json")
    assert lint.exit_code == 0 and json.loads(lint.stdout)["errors"] == []
    change_rows(out, lambda rows: [r | {"mask_area": 1} for r in rows])
    broken = run("lint", out, "--json")
    assert broken.exit_code == 2 and len(json.loads(broken.stdout)["errors"]) > 0


def test_preview_is_a_picture_of_the_task(clean, tmp_path):
    sheet = tmp_path / "sheet.png"
    assert run("preview", clean, "--out", sheet, "--task", "reasoning").exit_code == 0
    assert Image.open(io.BytesIO(sheet.read_bytes())).size[0] > 1000
    wrong = run("preview", clean, "--out", tmp_path / "sheet.jpg")
    assert isinstance(wrong.exception, UserError)


@pytest.mark.parametrize("command", ["info", "lint"])
def test_missing_and_unfinished_stores(command, store):
    with pytest.raises(UserError, match="no store"):
        raise run(command, store / "nowhere").exception
    (store / "dataset.json").unlink()
    with pytest.raises(UserError, match="unfinished"):
        raise run(command, store).exception
