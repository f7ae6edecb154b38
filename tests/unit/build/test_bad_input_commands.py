"""What is wrong with a user's input, through the command: exit code 2 and one line that names the file."""

import errno
import os
import pickle
import subprocess

import numpy as np
import pytest
from PIL import Image

from jobs.cli import cli, run
from tests.release_layouts import LAYOUTS
from tests.unit.build.test_bad_sources import TABLE, pair, zipped


@pytest.fixture
def refused(tmp_path, capfd):
    """Runs ``unigeoseg data ...``, which must be refused; gives the one line that it says."""

    def call(*arguments):
        with pytest.raises(SystemExit) as ended:
            run(cli, ["data", *map(str, arguments)])
        said = [line for line in capfd.readouterr().err.splitlines() if "100%" not in line]
        assert ended.value.code == 2, said
        assert len(said) == 1 and "Traceback" not in said[0], said
        return said[0]

    return call


@pytest.fixture
def build(tmp_path, refused):
    (tmp_path / "mine.yaml").write_text(TABLE)
    (tmp_path / "in").mkdir()

    def call(**sets):
        options = [t for k, v in ({"workers": 0} | sets).items() for t in ("--set", f"{k}={v}")]
        where = ("--root", tmp_path / "in", "--out", tmp_path / "s", "--force")
        return refused("build", "--source", tmp_path / "mine.yaml", *where, *options)

    return call


def test_a_mask_of_another_size(tmp_path, build):
    pair(tmp_path / "in", "ö 1")
    mask = Image.open(tmp_path / "in/a/masks/ö 1.png")
    mask.resize((70, 60)).save(tmp_path / "in/a/masks/ö 1.png")
    said = build()
    assert "ö 1.png" in said and "70" in said and "90" in said


def test_unknown_colours_missing_pairs_two_splits(tmp_path, build):
    pair(tmp_path / "in", "one", shift=40)
    assert "one.png: colour (" in (said := build()) and "is in no class" in said
    pair(tmp_path / "in", "one")
    pair(tmp_path / "in", "two")
    (tmp_path / "in/a/masks/two.png").unlink()
    assert "two.png" in (said := build()) and "max_bad_share" in said
    pair(tmp_path / "in", "two", "b")
    (tmp_path / "in/a/images/two.png").unlink()
    pair(tmp_path / "in", "one", "b")
    assert "scene 'one' is in two splits" in build()
    (tmp_path / "in/b/images/one.png").unlink()
    (tmp_path / "in/b/masks/one.png").unlink()
    pair(tmp_path / "in", "one", image="jpg")
    assert "both belong to a/masks/one.png" in build()


def test_palette_images_are_read_as_the_colours_they_stand_for(tmp_path, capfd):
    """A mode-P mask and a mode-P image give the same store as their RGB forms."""
    (tmp_path / "mine.yaml").write_text(TABLE)
    stores = []
    for form in ("RGB", "P"):
        root = tmp_path / form
        for name in ("one", "two"):
            pair(root, name)
            for part in ("images", "masks"):
                file = root / "a" / part / f"{name}.png"
                pixels = np.asarray(Image.open(file)) // 64 * 64 if part == "images" else Image.open(file)
                picture = pixels if part == "masks" else Image.fromarray(pixels)
                picture = picture.convert("P", palette=Image.Palette.ADAPTIVE, colors=256)
                assert picture.mode == "P"
                # One of the two is left in RGB: both forms stand side by side.
                if form == "RGB" or (part == "masks" and name == "two"):
                    picture = picture.convert("RGB")
                picture.save(file)
        with pytest.raises(SystemExit) as ended:
            run(
                cli, ["data", "build", "--source", str(tmp_path / "mine.yaml"), "--root", str(root), "--out",
                      str(tmp_path / f"s{form}"), "--set", "workers=0", "--json"],
            )  # fmt: skip
        assert ended.value.code == 0, capfd.readouterr().err
        import pyarrow.parquet as pq

        rows = pq.read_table(tmp_path / f"s{form}" / "index.parquet")
        stores.append(rows.select(["sample_id", "mask_area", "category"]).to_pylist())
    assert stores[0] == stores[1] and stores[0]


def test_archives(tmp_path, refused):
    zipped(tmp_path / "bad.zip", {"../evil": b"1"})
    assert "would leave the folder" in refused("unpack", tmp_path / "bad.zip")
    zipped(tmp_path / "bomb.zip", {f"{n}": bytes(40_000_000) for n in range(3)})
    assert "as a bomb does" in refused("unpack", tmp_path / "bomb.zip")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.zip", "bomb.zip"]


class _Evil:
    def __reduce__(self):
        return os.mkdir, ("evil-was-here",)


def test_a_hostile_pickle_is_not_run(tmp_path, refused, monkeypatch):
    monkeypatch.chdir(tmp_path)
    LAYOUTS["rrsisd"](tmp_path / "in")
    (tmp_path / "in/rrsisd/refs(unc).p").write_bytes(pickle.dumps([_Evil()]))
    said = refused("build", "--source", "rrsisd", "--root", tmp_path / "in", "--out", tmp_path / "s")
    assert "refs(unc).p" in said and not (tmp_path / "evil-was-here").exists()


def test_hostile_xml_is_not_expanded(tmp_path, refused):
    table = """
licence: mine
layouts: [{image: '{name}.png', labels: '{name}.xml', boxes: voc, group: '{name}'}]
classes: [{name: ship, category: 1 Airplane}]
"""
    import yaml

    from pipelines.labels.taxonomy import taxonomy

    content = yaml.safe_load(table)
    content["classes"][0]["category"] = f"1 {taxonomy()[1].name}"
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(content))
    (tmp_path / "in").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "in/a.png")
    (tmp_path / "in/a.xml").write_text('<!DOCTYPE a [<!ENTITY x "y">]><annotation>&x;</annotation>')
    where = ("--root", tmp_path / "in", "--out", tmp_path / "s", "--set", "workers=0")
    said = refused("build", "--source", tmp_path / "t.yaml", *where)
    assert "a.xml" in said and "refused: it declares" in said


@pytest.fixture
def full_disk(tmp_path):
    """A file system of 192 KiB, where one may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", "size=192k", "tmpfs", str(folder)]
    try:
        done = subprocess.run(options, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("no mount command here")
    if done.returncode:
        pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_really_full(full_disk, refused):
    where = ("--out", full_disk / "s", "--set", "workers=0", "--set", "source.scenes=12")
    said = refused("build", "--source", "synthetic", *where)
    assert os.strerror(errno.ENOSPC) in said and "give the same command again" in said
    assert not list(full_disk.rglob("*.partial"))


def test_a_disk_that_is_full_when_a_store_is_merged_or_exported(full_disk, refused, tmp_path):
    from tests.unit.build.test_store_tools import build_own

    stores = [build_own(tmp_path, name, images=4) for name in ("a", "b")]
    said = refused("merge", *stores, "--out", full_disk / "m")
    assert os.strerror(errno.ENOSPC) in said
    for form in ("coco", "webdataset"):
        assert os.strerror(errno.ENOSPC) in refused(
            "export", stores[0], "--to", form, "--out", full_disk / form
        )
    assert os.strerror(errno.ENOSPC) in refused("report", stores[0], "--out", full_disk / "r.html")
