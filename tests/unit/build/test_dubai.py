import io
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines.build import BuildConfig, build_store
from pipelines.build.sources.base import UnusableImage
from pipelines.build.sources.registry import open_source
from pipelines.labels.stages import StageCounts
from pipelines.labels.tiling import Window
from pipelines.pictures.picture import open_picture
from unigeoseg.errors import UserError

BUILDING, LAND, ROAD, PLANTS, WATER = (
    (60, 16, 152),
    (132, 41, 246),
    (110, 193, 228),
    (254, 221, 58),
    (226, 169, 41),
)


def write_pair(root, tile, part, size=(200, 150), palette=False, change=None):
    """An image part with two buildings, water, a road, black and grey pixels; size is (width, height)."""
    width, height = size
    mask = np.zeros((height, width, 3), np.uint8)
    mask[:] = LAND
    mask[10:40, 10:50] = mask[100:130, 140:180] = BUILDING
    mask[20:60, 120:170] = WATER
    mask[70:82] = ROAD
    mask[95:140, 20:70] = PLANTS
    mask[:3], mask[-3:] = 0, 155
    if change is not None:
        change(mask)
    rng = np.random.default_rng([tile, part])
    image = np.clip(mask * 0.4 + 90 + rng.normal(0, 6, mask.shape), 0, 255).astype(np.uint8)
    for name in ("images", "masks"):
        (root / f"Tile {tile}" / name).mkdir(parents=True, exist_ok=True)
    file = root / f"Tile {tile}" / "images" / f"image_part_{part:03d}.jpg"
    Image.fromarray(image).save(file, quality=92)
    label = Image.fromarray(mask)
    label = label.convert("P", palette=Image.Palette.ADAPTIVE, colors=16) if palette else label
    label.save(root / f"Tile {tile}" / "masks" / f"image_part_{part:03d}.png")
    return file


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "Semantic segmentation dataset"
    for tile in (1, 2, 10):
        for part in (1, 2):
            write_pair(folder, tile, part, (200, 150 + part), palette=tile == 2)
    # The data set's own class file names other colours; it must not matter.
    (folder / "classes.json").write_text(json.dumps({"classes": [{"title": "Water", "color": "#50E3C2"}]}))
    return folder


def config(**changes):
    return BuildConfig(workers=0, instruct={"diversity_quantile": 0.0}, **changes)


def build(root, out, **changes):
    return build_store("dubai", root, out, config(**changes), progress=False, preview=False)


def opened(root):
    source = open_source("dubai", root, config(max_unknown_share=0.0))
    return source, list(source.items())


def labels_of(image):
    return image.cut(Window(0, 0, image.height, image.width)).labels


def test_palette_masks_and_ignored_colours(root):
    source, items = opened(root)
    assert [i.group for i in items] == ["Tile 1"] * 2 + ["Tile 2"] * 2 + ["Tile 10"] * 2
    assert len({i.key for i in items}) == 6 and all(i.key.isidentifier() for i in items)
    rgb, palette = source.read(items[0]), source.read(items[2])
    assert Image.open(items[2].detail["label"]).mode == "P"
    assert (labels_of(rgb) == labels_of(palette)).all()
    assert sorted(np.unique(labels_of(rgb))) == [0, 10, 12, 13, 14, 25]
    counts = StageCounts()
    rgb.count(counts)
    (row,) = (r for r in counts.rows() if r["name"] == "standardise")
    assert (row["in"], row["dropped"]) == (200 * 151, {"ignore": 6 * 200})


def test_store_keeps_the_files_bytes_and_splits_by_tile_folder(root, tmp_path):
    result = build(root, tmp_path / "s", split={"val": 0.34})
    assert min(result["samples"].values()) > 0
    rows = pq.read_table(tmp_path / "s" / "index.parquet").to_pylist()
    folders = {}
    for row in rows:
        folders.setdefault(row["scene"].split("/")[0], set()).add(row["split"])
    assert sorted(map(tuple, folders.values())) == [("train",), ("train",), ("val",)]
    assert {r["licence"] for r in rows} == {"CC0-1.0"} and {r["source"] for r in rows} == {"dubai"}
    row = next(r for r in rows if r["scene"] == "Tile 2/image_part_001")
    data = (tmp_path / "s" / row["shard"]).read_bytes()[row["offset"] :]
    original = (root / "Tile 2" / "images" / "image_part_001.jpg").read_bytes()
    assert data[512 : 512 + len(original)] == original
    assert data[:100].rstrip(b"\0").decode() == f"{row['key']}.jpg"


def test_large_images_are_tiled(root, tmp_path):
    result = build(root, tmp_path / "s", tile={"size": 128, "stride": 64})
    assert next(r for r in result["stages"] if r["name"] == "tile")["out"] == 6 * 3 * 2
    rows = pq.read_table(tmp_path / "s" / "index.parquet").to_pylist()
    assert {(r["height"], r["width"]) for r in rows} == {(128, 128)}
    assert len({r["key"] for r in rows}) > 6


def test_truncated_and_foreign_files(root, tmp_path):
    file = root / "Tile 1" / "images" / "image_part_001.jpg"
    whole = file.read_bytes()
    for content, word in (
        (whole[: len(whole) // 2], "truncated"),
        (b"<html>", "not an image of a known kind"),
        (b"", "not an image of a known kind"),
    ):
        file.write_bytes(content)
        with pytest.raises(UserError, match=rf"image_part_001\.jpg.*{word}"):
            build(root, tmp_path / "s")
    result = build(root, tmp_path / "s", max_bad_share=0.2)
    assert [(b["reason"], b["file"]) for b in result["quarantined"]] == [("unreadable_image", str(file))]
    assert result["stages"][0]["out"] == 5


def test_repairing_a_file_lets_the_build_go_on(root, tmp_path):
    file = root / "Tile 1" / "images" / "image_part_001.jpg"
    whole = file.read_bytes()
    file.write_bytes(whole[:900])
    with pytest.raises(UserError):
        build(root, tmp_path / "s")
    file.write_bytes(whole)
    assert build(root, tmp_path / "s")["quarantined"] == []


def test_mask_problems_name_the_file(root):
    mask = root / "Tile 1" / "masks" / "image_part_001.png"
    source, (item, *_) = opened(root)
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(mask)
    with pytest.raises(
        UnusableImage, match=r"image_part_001\.png: the mask is 30x20 pixels, its image 200x151"
    ) as found:
        source.read(item)
    assert found.value.reason == "mask_size"
    mask.unlink()
    with pytest.raises(UnusableImage, match="there is no mask"):
        source.read(item)


def test_unknown_colours_are_borne_up_to_the_share(root, tmp_path):
    def few(mask):
        mask[50:52, 60:80] = (1, 2, 3)

    write_pair(root, 1, 1, (200, 151), change=few)
    result = build(root, tmp_path / "a")
    dropped = next(r for r in result["stages"] if r["name"] == "standardise")["dropped"]
    assert dropped == {"ignore": 6 * 200 * 6, "unknown": 40}

    def many(mask):
        mask[50:90, 60:120] = (1, 2, 3)

    write_pair(root, 1, 1, (200, 151), change=many)
    with pytest.raises(UserError, match=r"image_part_001\.png: colour \(1, 2, 3\) .* 7\.9%"):
        build(root, tmp_path / "b")
    assert build(root, tmp_path / "b", max_unknown_share=0.1)["samples"]["interactive"] > 0


def test_wrong_roots(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        build(tmp_path / "nowhere", tmp_path / "s")
    with pytest.raises(UserError, match="Tile N"):
        build(tmp_path, tmp_path / "s")
    with pytest.raises(UserError, match="--root"):
        build(None, tmp_path / "s")
    with pytest.raises(UserError, match="no --root"):
        build_store("synthetic", tmp_path, tmp_path / "s", config())
    with pytest.raises(UserError, match=r"choose one of chesapeake, .*synthetic"):
        build_store("dubay", tmp_path, tmp_path / "s", config())
    with pytest.raises(UserError, match="scnes"):
        build_store("synthetic", None, tmp_path / "s", config(source={"scnes": 3}))


def test_transparent_and_grey_images_become_rgb(tmp_path):
    for mode in ("L", "RGBA", "P", "1"):
        buffer = io.BytesIO()
        Image.new(mode, (5, 4)).save(buffer, "PNG")
        (tmp_path / f"{mode}.png").write_bytes(buffer.getvalue())
        assert open_picture(tmp_path / f"{mode}.png").pixels().shape == (4, 5, 3)
