"""Benchmarks and pictures as people have them, through ``unigeoseg evaluate`` and ``predict``."""

import json

import numpy as np
import pyarrow.parquet as pq
from click.testing import CliRunner
from PIL import Image

from jobs.cli import cli
from pipelines.pictures.turn import turn_pixels
from tests.unit.triplets.test_file_cases import SQUARE, H, W, build, compressed, earthreason, rrsisd, stage
from tests.web_server import WebServer
from unigeoseg.errors import UserError


def run(*words):
    done = CliRunner().invoke(cli, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done


def evaluated(export, data, out, *more):
    run("evaluate", "--model", export, "--data", data, "--out", out, "--no-plots", *more)
    return json.loads((out / "evaluation.json").read_text()), pq.read_table(out / "per_sample.parquet")


def sideways(stored, exif=6):
    """EXIF of a picture that stands upright once it is turned, and its pixels as stored."""
    told = Image.Exif()
    told[0x0112] = exif
    return told, turn_pixels(stored, 8)


def test_pictures_of_a_benchmark_are_turned_or_left(export, tmp_path):
    pixels = np.where(SQUARE[..., None] > 0, 220, 60).repeat(3, 2).astype(np.uint8)
    told, stored = sideways(pixels)
    earthreason(tmp_path / "in", "a", stored, turn_pixels(SQUARE, 8), told)
    found, rows = evaluated(export, tmp_path / "in", tmp_path / "turned")
    assert found["turn"] and [rows["height"][0].as_py(), rows["width"][0].as_py()] == [H, W]
    left, rows = evaluated(export, tmp_path / "in", tmp_path / "left", "--no-turn")
    assert not left["turn"] and [rows["height"][0].as_py(), rows["width"][0].as_py()] == [W, H]
    assert left["fingerprint"] != found["fingerprint"]
    assert rows["truth_area"][0].as_py() > 0
    kept = build("earthreason", tmp_path / "in", tmp_path / "s", source={"turn": False})
    assert kept["samples"]["reasoning"] == 1
    index = pq.read_table(next((tmp_path / "s").glob("index.parquet")))
    assert (index["height"][0].as_py(), index["width"][0].as_py()) == (W, H)


def test_a_picture_is_turned_or_left_by_predict(export, tmp_path):
    told, stored = sideways(np.random.default_rng(0).integers(0, 255, (H, W, 3)).astype(np.uint8))
    Image.fromarray(stored).save(tmp_path / "a.jpg", exif=told)
    sizes = {}
    for switch in ("--turn", "--no-turn"):
        words = ("--image", tmp_path / "a.jpg", "--text", "the hall", "--out", tmp_path / switch)
        run("predict", "--model", export, switch, *words)
        sizes[switch] = json.loads((tmp_path / switch / "prediction.json").read_text())["mask"]["size"]
    assert sizes == {"--turn": [H, W], "--no-turn": [W, H]}


def test_a_store_has_no_switch_for_turning(export, store):
    done = CliRunner().invoke(cli, ["evaluate", "--model", export, "--data", store, "--no-turn"])
    assert isinstance(done.exception, UserError) and "source.turn=false" in str(done.exception)


def test_stretched_masks_stand_in_the_evaluation(export, tmp_path):
    rrsisd(tmp_path / "in", {f"p{n}": [compressed(SQUARE)] for n in range(7)}, (H + 1, W))
    picture = tmp_path / "in" / "images" / "rrsisd" / "JPEGImages" / "p3.jpg"
    Image.fromarray(np.zeros((H, W, 3), np.uint8)).save(picture)
    found, rows = evaluated(export, tmp_path / "in", tmp_path / "out", "--split", "test")
    assert found["stretched"]["n"] == 6 and len(found["stretched"]["named"]) == 5
    first = found["stretched"]["named"][0]
    assert first == {"sample_id": "rrsisd/p0/referring/0", "image": [H + 1, W], "mask": [H, W]}
    sizes = dict(zip(rows["sample_id"].to_pylist(), rows["mask_size"].to_pylist(), strict=True))
    assert sizes.pop("rrsisd/p3/referring/0") is None and set(map(tuple, sizes.values())) == {(H, W)}
    text = (tmp_path / "out" / "evaluation.md").read_text()
    assert f"6 truth masks were stretched to pictures of another size: rrsisd/p0/referring/0 ({W}x{H}" in text


def test_suffixes_in_another_case_are_found_and_told(export, tmp_path):
    rrsisd(tmp_path / "in", {f"p{n}": [compressed(SQUARE)] for n in range(3)})
    place = tmp_path / "in" / "images" / "rrsisd" / "JPEGImages"
    before, _ = evaluated(export, tmp_path / "in", tmp_path / "before", "--split", "test")
    (place / "p1.jpg").rename(place / "p1.JPG")
    (place / "p0.JPG").write_bytes((place / "p2.jpg").read_bytes())  # p0.jpg is there, and counts
    found, _ = evaluated(export, tmp_path / "in", tmp_path / "out", "--split", "test")
    assert found["overall"] == before["overall"] and before["files"] == {}
    named = ["images/rrsisd/JPEGImages/p1.JPG"]
    assert found["files"] == {"suffix_in_another_case": {"n": 1, "named": named}}
    assert f"1 suffix in another case ({named[0]})" in (tmp_path / "out" / "evaluation.md").read_text()
    row = stage(build("rrsisd", tmp_path / "in", tmp_path / "store"), "files")
    assert row["noted"] == {"suffix_in_another_case": 1} and row["named"]["suffix_in_another_case"] == named
    (place / "p1.Jpg").write_bytes((place / "p1.JPG").read_bytes())
    done = CliRunner().invoke(cli, ["evaluate", "--model", export, "--data", str(tmp_path / "in")])
    assert isinstance(done.exception, UserError)
    assert "p1.JPG and p1.Jpg differ in the case of their suffix alone" in str(done.exception)


def test_a_benchmark_on_a_web_server_is_evaluated_as_from_its_folder(export, tmp_path):
    rrsisd(tmp_path / "in", {f"p{n}": [compressed(SQUARE)] for n in range(3)})
    place = tmp_path / "in" / "images" / "rrsisd" / "JPEGImages"
    (place / "p1.jpg").rename(place / "p1.JPG")
    here, _ = evaluated(export, tmp_path / "in", tmp_path / "here", "--split", "test")
    with WebServer(tmp_path / "in") as web:
        there, _ = evaluated(export, web.url, tmp_path / "there", "--split", "test")
    assert there.pop("data") == web.url and here.pop("data") and here == there


def test_files_that_are_paired_by_stem_may_have_any_suffix_once(export, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (H, W, 3)).astype(np.uint8)
    for name in "ab":
        earthreason(tmp_path / "in", name, pixels, SQUARE)
    place = tmp_path / "in" / "val"
    for old, new in (
        ("images/a.png", "images/a.PNG"),
        ("labels/a.png", "labels/a.PNG"),
        ("QAs/b.json", "QAs/b.JSON"),
    ):
        (place / old).rename(place / new)
    (place / "images" / "b.PNG").write_bytes(b"another")
    found, _ = evaluated(export, tmp_path / "in", tmp_path / "out")
    assert found["overall"]["n"] == 2 and not found["unusable"]
    assert found["files"] == {"twin_in_another_case": {"n": 1, "named": ["val/images/b.PNG"]}}
