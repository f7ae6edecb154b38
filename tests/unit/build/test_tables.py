"""Every shipped source reads files in its own layout, and its table is what its masks become."""

import numpy as np
import pytest
from PIL import Image

from pipelines.build import BuildConfig
from pipelines.build.sources.registry import open_source
from pipelines.build.sources.table import shipped_tables
from pipelines.labels.stages import StageCounts
from pipelines.labels.taxonomy import taxonomy
from pipelines.labels.tiling import Window
from tests.unit.build.layouts import category_of, colour_of, paths, raw_table, write_image

SOURCES = {
    "loveda", "potsdam", "vaihingen", "deepglobe", "flair", "gid15", "fbp", "globe230k", "minifrance",
    "chesapeake", "dota", "dior", "fair1m", "dubai",
}  # fmt: skip
BANDS = {"flair": 5, "fbp": 4, "chesapeake": 4}
MASKS = [
    (name, layout.name)
    for name, table in sorted(shipped_tables().items())
    if table.kind == "masks"
    for layout in table.layouts
]


def whole(image):
    return image.cut(Window(0, 0, image.height, image.width))


def test_all_sources_have_a_table_that_says_where_it_comes_from():
    assert set(shipped_tables()) == SOURCES
    for table in shipped_tables().values():
        for what in ("title", "url", "paper", "expects", "encoding_source", "licence_note", "notes"):
            assert getattr(table, what), (table.name, what)
        assert table.checked.startswith(("on real files", "layout made by the tests", "index form"))


@pytest.mark.parametrize(("name", "layout_name"), MASKS)
def test_masks_become_the_categories_of_the_table(name, layout_name, tmp_path):
    raw = raw_table(name)
    layout = next(row for row in raw["layouts"] if row.get("name", "default") == layout_name)
    image_path, mask_path = paths(layout)
    indexed = layout.get("encoding", "index") == "index"
    rows = [row for row in raw["classes"] if ("value" if indexed else "colour") in row]
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(rows), (40, 48))
    expected = np.asarray([category_of(row["category"]) for row in rows])[drawn]
    if indexed:
        mask = np.asarray([row["value"] for row in rows], np.uint8)[drawn]
    else:
        mask = np.asarray([colour_of(row["colour"]) for row in rows], np.uint8)[drawn]
    bands = rng.integers(0, 256, (40, 48, BANDS.get(name, 3))).astype(np.uint8)
    write_image(tmp_path / image_path, bands)
    write_image(tmp_path / mask_path, mask)
    source = open_source(name, tmp_path, BuildConfig(max_unknown_share=0.0, source={"layout": layout_name}))
    (item,) = source.items()
    opened = source.read(item)
    part = whole(opened)
    assert (part.labels == expected).all()
    if image_path.endswith((".tif", ".png")):
        shown = [b - 1 for b in raw.get("bands", [1, 2, 3])]
        assert (part.pixels == bands[..., shown]).all()
    counts = StageCounts()
    opened.count(counts)
    row = next(r for r in counts.rows() if r["name"] == "standardise")
    assert (row["in"], row["out"]) == (expected.size, int((expected > 0).sum()))
    if "splits" in layout:
        assert item.split == layout["splits"]["train" if "train" in layout["splits"] else "Train"]


def test_tables_name_the_ids_of_the_taxonomy():
    for name in SOURCES:
        for row in raw_table(name)["classes"]:
            if row["category"] is not None:
                number, _, text = row["category"].partition(" ")
                assert taxonomy()[int(number)].name == text


def test_real_loveda_and_potsdam_crops(shared):
    root = shared / "data" / "mmseg_tests" / "tests" / "data"
    love = {2: 25, 3: 12, 4: 10, 5: 11, 6: 9, 7: 7}
    isprs = {1: 1, 2: 25, 3: 2, 4: 3, 5: 4, 6: 5}
    for name, folder, known in (
        ("loveda", "pseudo_loveda_dataset", love),
        ("potsdam", "pseudo_potsdam_dataset", isprs),
    ):
        source = open_source(name, root / folder, BuildConfig(max_unknown_share=0.0))
        items = list(source.items())
        assert len(items) == len(list((root / folder / "img_dir").iterdir()))
        for item in items:
            opened = source.read(item)
            values = np.asarray(Image.open(item.detail["label"]))
            part = whole(opened)
            assert opened.encoded is not None
            assert (part.labels == np.vectorize(lambda v, known=known: known.get(v, 0))(values)).all()
            assert len(set(np.unique(part.labels)) - {0}) >= 3
            opened.count(StageCounts())


def test_names_of_places_that_a_scene_and_a_split_are_made_of(tmp_path):
    for city, n in (("Nice", 1), ("Nice", 2), ("Brest", 1)):
        for folder, suffix in (("BDORTHO", ""), ("UrbanAtlas", "_UA2012")):
            write_image(
                tmp_path / "labeled_train" / city / folder / f"{n}{suffix}.tif",
                np.ones((20, 20, 3) if folder == "BDORTHO" else (20, 20), np.uint8),
            )
    items = list(open_source("minifrance", tmp_path, BuildConfig()).items())
    assert [(i.group, i.scene, i.key) for i in items] == [
        ("Brest", "Brest/1", "Brest_1"),
        ("Nice", "Nice/1", "Nice_1"),
        ("Nice", "Nice/2", "Nice_2"),
    ]
