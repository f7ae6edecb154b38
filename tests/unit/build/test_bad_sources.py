"""What is wrong with a user's files: each case is named, with the file, and nothing is dropped silently."""

import errno
import io
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from pipelines.build import BuildConfig, build_store
from pipelines.build.sources.annotations import read_annotations
from pipelines.build.sources.archive import unpack
from pipelines.build.sources.base import UnusableImage
from pipelines.build.sources.listing import item_key
from pipelines.build.sources.registry import open_source
from pipelines.store import writer
from unigeoseg.errors import UserError

TABLE = """
licence: mine
layouts:
  - image: '{split:a|b}/images/{name}.{suffix:png|jpg}'
    mask: '{split}/masks/{name}.png'
    encoding: palette
    scene: '{name}'
    splits: {a: train, b: val}
tolerance: 3
classes:
  - {name: house, colour: [200, 0, 0], category: 25 Building}
  - {name: street, colour: [0, 200, 0], category: 12 Road}
  - {name: rest, colour: [0, 0, 0], category: null}
"""


@pytest.fixture
def table(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(TABLE)
    return file


def pair(root, name, split="a", shift=0, image="png", size=(80, 90)):
    mask = np.zeros((*size, 3), np.uint8)
    mask[10:30, 10:40] = (200 + shift, 0, 0)
    mask[50:60] = (0, 200, shift)
    pixels = np.random.default_rng(len(name)).integers(0, 256, mask.shape).astype(np.uint8)
    for folder, values, suffix in (("images", pixels, image), ("masks", mask, "png")):
        (root / split / folder).mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(root / split / folder / f"{name}.{suffix}")


def build(table, root, out, **changes):
    config = BuildConfig(workers=0, instruct={"diversity_quantile": 0.0}, **changes)
    return build_store(str(table), root, out, config, progress=False, preview=False)


def test_a_source_of_ones_own_with_odd_names(table, tmp_path):
    root = tmp_path / "in put"
    for name in ("one", "zwei ä", "три", "a b", "a_b", "A_b", "x" * 150):
        pair(root, name, shift=3)
    result = build(table, root, tmp_path / "s")
    assert result["quarantined"] == [] and result["stages"][0]["out"] == 7
    keys = [item.key for item in open_source(str(table), root, BuildConfig()).items()]
    assert len(set(keys)) == 7 and all(key.isascii() and key.replace("_", "a").isalnum() for key in keys)
    with tarfile.open(tmp_path / "s" / "shards" / "train-00000.tar") as tar:
        assert all(len(member.name) <= 100 for member in tar)


def test_keys_do_not_depend_on_what_lies_beside():
    assert item_key("train/a-1") == "train_a_1"
    assert item_key("a b") != item_key("a_b") and item_key("ä") != item_key("ö")


def test_missing_partners_are_counted_on_both_sides(table, tmp_path):
    for name in ("one", "two", "three"):
        pair(tmp_path / "in", name)
    (tmp_path / "in" / "a" / "masks" / "two.png").unlink()
    (tmp_path / "in" / "a" / "images" / "three.png").unlink()
    with pytest.raises(
        UserError, match=r"2 of 3 images cannot be used: .*two\.png.*three\.png.*max_bad_share"
    ):
        build(table, tmp_path / "in", tmp_path / "s")
    result = build(table, tmp_path / "in", tmp_path / "s", max_bad_share=0.7)
    assert {row["reason"] for row in result["quarantined"]} == {"missing_mask", "missing_image"}
    assert result["stages"][0]["dropped"] == {"missing_mask": 1, "missing_image": 1}


def test_two_images_of_one_mask(table, tmp_path):
    pair(tmp_path / "in", "one")
    pair(tmp_path / "in", "one", image="jpg")
    with pytest.raises(UserError, match=r"one\.jpg and a/images/one\.png both belong to a/masks/one\.png"):
        build(table, tmp_path / "in", tmp_path / "s")


def test_a_scene_in_two_splits(table, tmp_path):
    pair(tmp_path / "in", "one", "a")
    pair(tmp_path / "in", "one", "b")
    with pytest.raises(UserError, match=r"scene 'one' is in two splits, .*train.*val"):
        build(table, tmp_path / "in", tmp_path / "s")


def test_the_sources_own_splits_are_taken_on_request(table, tmp_path):
    for n in range(6):
        pair(tmp_path / "in", f"n{n}", "a" if n < 5 else "b")
    import pyarrow.parquet as pq

    build(table, tmp_path / "in", tmp_path / "s", split={"own": True, "val": 0.5})
    rows = pq.read_table(tmp_path / "s" / "index.parquet").to_pylist()
    assert {(r["scene"], r["split"]) for r in rows} == {
        *((f"n{n}", "train") for n in range(5)),
        ("n5", "val"),
    }


def test_colours_within_the_tolerance_belong_to_a_class(table, tmp_path):
    pair(tmp_path / "in", "one", shift=3)
    build(table, tmp_path / "in", tmp_path / "s", max_unknown_share=0.0)
    pair(tmp_path / "in", "one", shift=4)
    with pytest.raises(UserError, match=r"one\.png: colour \(0, 200, 4\) is in no class; 20\.8%"):
        build(table, tmp_path / "in", tmp_path / "t", max_unknown_share=0.0)


def test_tables_that_are_wrong_say_what_to_write(tmp_path, table):
    cases = {
        "25 Building": ("25 Biulding", "25 is Building"),
        "category: 12 Road": ("category: Road", "an id and its name"),
        "licence: mine": ("licens: mine", "licens: unknown key"),
        "mask: '{split}/masks/{name}.png'": ("mask: '{other}.png'", "{other} does not occur in image"),
        "colour: [0, 200, 0]": ("colour: [200, 0, 0]", "occurs twice"),
        "encoding: palette": ("encoding: index", "index masks need a value per class"),
        "{split:a|b}": ("{split:a|(b}", "path pattern"),
    }
    for old, (new, words) in cases.items():
        table.write_text(TABLE.replace(old, new))
        with pytest.raises(UserError) as found:
            open_source(str(table), tmp_path, BuildConfig())
        assert words in str(found.value) and "mine.yaml" in str(found.value), found.value
    table.write_text("[")
    with pytest.raises(UserError, match="not valid YAML"):
        open_source(str(table), tmp_path, BuildConfig())


@pytest.mark.parametrize(
    "text",
    [
        '<!DOCTYPE a [<!ENTITY x "yyyyyyyy"><!ENTITY z "&x;&x;&x;">]><annotation>&z;</annotation>',
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>',
    ],
)
def test_hostile_xml_is_refused(tmp_path, text):
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(UnusableImage, match=r"a\.xml: refused: it declares") as found:
        read_annotations(tmp_path / "a.xml", "voc", "a.jpg")
    assert found.value.reason == "hostile_labels"


def test_malformed_labels_name_the_file(tmp_path):
    for form, text in (
        ("voc", "<annotation>"),
        ("dota", "1 2 3 ship 0"),
        ("csv", "a,b\n1,2"),
        ("labelme", '{"shapes": ' + "[" * 100000),
        ("fair1m", ""),
    ):
        (tmp_path / "a").write_text(text)
        with pytest.raises(UnusableImage, match="cannot be read") as found:
            read_annotations(tmp_path / "a", form, "a.jpg")
        assert found.value.reason == "unreadable_labels"
    for geometry in ("__import__('os').system('x')", "[" * 5000):
        (tmp_path / "a").write_text(f"image_id,geometry,class\na.jpg,{geometry},b\n")
        (one,) = read_annotations(tmp_path / "a", "csv", "a.jpg")
        assert (one.name, one.fault) == ("b", "coordinates")


def zipped(file, members):
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def test_archives_are_unpacked_or_refused_whole(tmp_path):
    zipped(tmp_path / "good.zip", {"a/b ä.txt": b"hello", "c.bin": bytes(2000)})
    assert unpack(tmp_path / "good.zip", tmp_path / "good")["files"] == 2
    assert (tmp_path / "good" / "a" / "b ä.txt").read_bytes() == b"hello"
    with pytest.raises(UserError, match="holds files already"):
        unpack(tmp_path / "good.zip", tmp_path / "good")
    for name in ("../evil", "/evil", "a/../../evil", "..\\evil", "C:/evil"):
        zipped(tmp_path / "bad.zip", {"fine": b"1", name: b"2"})
        with pytest.raises(UserError, match="would leave the folder"):
            unpack(tmp_path / "bad.zip", tmp_path / "out")
    zipped(tmp_path / "bomb.zip", {f"{n}": bytes(40_000_000) for n in range(3)})
    with pytest.raises(UserError, match="as a bomb does"):
        unpack(tmp_path / "bomb.zip", tmp_path / "out")
    with tarfile.open(tmp_path / "link.tar", "w") as tar:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        tar.addfile(link)
    with pytest.raises(UserError, match="is a link or a device"):
        unpack(tmp_path / "link.tar", tmp_path / "out")
    with tarfile.open(tmp_path / "good.tar.gz", "w:gz") as tar:
        info = tarfile.TarInfo("x/y")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
    assert unpack(tmp_path / "good.tar.gz", tmp_path / "tar")["bytes"] == 3
    (tmp_path / "no.zip").write_bytes(b"PK not really")
    with pytest.raises(UserError, match="no zip or tar"):
        unpack(tmp_path / "no.zip", tmp_path / "out")
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob("*.unpacking"))
    with pytest.raises(UserError, match=r"is a file: unpack it first"):
        open_source("loveda", tmp_path / "good.zip", BuildConfig())


class _Full(io.RawIOBase):
    """A file on a disk that is full after some bytes."""

    def __init__(self, inner, left):
        self._inner, self._left = inner, left

    def writable(self):
        return True

    def write(self, data):
        if (taken := memoryview(data).nbytes) > self._left[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        self._left[0] -= taken
        return self._inner.write(data)

    def close(self):
        self._inner.close()
        super().close()


@pytest.mark.parametrize("room", [100, 20_000, 45_000])
def test_a_full_disk_says_so_and_the_build_goes_on_later(table, tmp_path, monkeypatch, room):
    for n in range(4):
        pair(tmp_path / "in", f"n{n}")
    build(table, tmp_path / "in", tmp_path / "whole", block_images=1)
    opened, left = writer.open_filesystem, [room]
    disk, _ = opened(str(tmp_path))
    open_file = type(disk).open

    def limited(self, path, mode="rb", **options):
        handle = open_file(self, path, mode, **options)
        return _Full(handle, left) if mode == "wb" else handle

    monkeypatch.setattr(type(disk), "open", limited)
    with pytest.raises(UserError, match=r"[Nn]o space"):
        build(table, tmp_path / "in", tmp_path / "s", block_images=1)
    assert not list((tmp_path / "s").rglob("*.partial"))
    monkeypatch.setattr(type(disk), "open", open_file)
    build(table, tmp_path / "in", tmp_path / "s", block_images=1)
    files = sorted(f.relative_to(tmp_path / "s") for f in (tmp_path / "s").rglob("*") if f.is_file())
    assert files == sorted(
        f.relative_to(tmp_path / "whole") for f in (tmp_path / "whole").rglob("*") if f.is_file()
    )
    for file in files:
        assert (tmp_path / "s" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
