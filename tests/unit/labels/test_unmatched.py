"""What lies in a source's folder and matches nothing is counted and named, and stops a build past a share."""

import json

import numpy as np
import pytest

from pipelines.build import BuildConfig, build_store
from pipelines.build.build import describe_build
from tests.unit.build.layouts import write_image
from unigeoseg.errors import UserError

MASKS = """
licence: mine
layouts: [{image: 'i/{name}.png', mask: 'm/{name}.png'}]
classes: [{name: a, value: 1, category: 25 Building}, {name: b, value: 0, category: null}]
"""
BOXES = """
licence: mine
layouts: [{image: 'i/{name}.png', labels: '%s', boxes: %s}]
classes: [{name: ship, category: 79 Ship}]
"""


def pictures(root, names, labels=True):
    rng = np.random.default_rng(0)
    for name in names:
        write_image(root / "i" / f"{name}.png", rng.integers(0, 256, (64, 64, 3)).astype(np.uint8))
        if labels:
            mask = np.zeros((64, 64), np.uint8)
            mask[10:40, 10:40] = 1
            write_image(root / "m" / f"{name}.png", mask)


def build(root, table, **more):
    (root / "t.yaml").write_text(table)
    config = BuildConfig.model_validate({"workers": 0} | more)
    return build_store(
        str(root / "t.yaml"), root, root.parent / "out", config, progress=False, preview=False, force=True
    )


def files(result):
    return next(row for row in result["stages"] if row["name"] == "files")


def test_system_files_links_and_capitals_are_told(tmp_path):
    root = tmp_path / "in"
    pictures(root, "abcd")
    for name in (".DS_Store", "Thumbs.db", "i/._a.png", "m/desktop.ini"):
        (root / name).write_bytes(b"x")
    (root / "i" / "a.PNG").write_bytes((root / "i" / "a.png").read_bytes())
    (root / "I").mkdir()
    (root / "I" / "e.png").write_bytes((root / "i" / "a.png").read_bytes())
    (root / "README.txt").write_text("x")
    (root / "more").mkdir()
    (root / "more" / "z.jpg").write_bytes(b"x")
    (root / "linked").symlink_to(root / "more")
    (root / "i" / "f.png").mkdir()
    result = build(root, MASKS)
    row = files(result)
    assert (row["in"], row["out"]) == (19, 8)
    assert row["dropped"] == {
        "folder_named_as_picture": 1,
        "link_to_folder": 1,
        "other_file": 2,  # the table itself lies there, too
        "other_picture": 1,
        "path_in_another_case": 1,
        "system_file": 4,
        "twin_in_another_case": 1,
    }
    assert row["named"]["path_in_another_case"] == ["I/e.png"]
    assert row["named"]["twin_in_another_case"] == ["i/a.PNG"]
    assert row["named"]["system_file"] == [".DS_Store", "Thumbs.db", "i/._a.png", "m/desktop.ini"]
    card = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert next(r for r in card["stages"] if r["name"] == "files") == row
    assert describe_build(str(root / "t.yaml"), root, "x", BuildConfig())["files"] == row


def test_label_files_without_picture_are_told_and_stop_the_build_past_a_share(tmp_path):
    root = tmp_path / "in"
    pictures(root, "ab", labels=False)
    (root / "l").mkdir()
    for name in "abcdef":
        (root / "l" / f"{name}.txt").write_text("10 10 40 10 40 40 10 40 ship 0\n")
    table = BOXES % ("l/{name}.txt", "dota")
    with pytest.raises(UserError, match=r"4 of 8 .* label without picture: l/c\.txt, l/d\.txt.*=0\.5"):
        build(root, table, max_unmatched_share=0.4)
    row = files(build(root, table))
    assert row["dropped"]["label_without_picture"] == 4
    assert row["named"]["label_without_picture"] == [f"l/{name}.txt" for name in "cdef"]


def test_rows_without_picture_are_told(tmp_path):
    root = tmp_path / "in"
    pictures(root, "abc", labels=False)
    shape = '"[(10, 10), (40, 10), (40, 40), (10, 40)]"'
    rows = [f"{name}.png,{shape},ship" for name in ("a", "b", "x", "x")]
    (root / "l.csv").write_text("\n".join(["image_id,geometry,class", *rows]))
    row = files(build(root, BOXES % ("l.csv", "csv")))
    assert row["dropped"]["row_without_picture"] == 1
    assert row["named"]["row_without_picture"] == ["l.csv: x.png"]
    assert row["noted"] == {"picture_without_row": 1} and row["named"]["picture_without_row"] == [
        "l.csv: c.png"
    ]


def renamed(root, *moves):
    for old, new in moves:
        (root / old).rename(root / new)


def test_suffixes_in_another_case_are_used_and_counted(tmp_path):
    root = tmp_path / "in"
    pictures(root, "abcd")
    before = build(root, MASKS)["samples"]
    renamed(root, ("i/b.png", "i/b.PNG"), ("m/b.png", "m/b.Png"), ("m/c.png", "m/c.PNG"))
    result = build(root, MASKS)
    row = files(result)
    assert result["samples"] == before and (row["out"], row["noted"]) == (8, {"suffix_in_another_case": 3})
    assert row["named"]["suffix_in_another_case"] == ["i/b.PNG", "m/b.Png", "m/c.PNG"]
    capitals = MASKS.replace("{name}.png'", "{name}.PNG'")
    row = files(build(root, capitals))  # a table in capitals, files in small letters
    assert (row["out"], row["noted"]) == (8, {"suffix_in_another_case": 6})
    # Where a file is spelled as the table says, it is the one that is meant; else nobody can tell.
    (root / "i" / "a.PNG").write_bytes((root / "i" / "c.png").read_bytes())
    assert files(build(root, MASKS))["named"]["twin_in_another_case"] == ["i/a.PNG"]
    (root / "i" / "b.PnG").write_bytes((root / "i" / "c.png").read_bytes())
    with pytest.raises(UserError, match=r"i/b\.PNG and i/b\.PnG differ in the case .* 'b\.png'"):
        build(root, MASKS)


@pytest.mark.parametrize("listed", ["{name}.png", "{name}.PNG"])
@pytest.mark.parametrize("form", ["csv", "coco", "dota"])
def test_label_files_name_pictures_in_another_case(form, listed, tmp_path):
    root = tmp_path / "in"
    pictures(root, "abc", labels=False)
    renamed(root, ("i/a.png", "i/a.PNG"))
    names = [listed.format(name=name) for name in "abc"]
    if form == "csv":
        shape = '"[(10, 10), (40, 10), (40, 40), (10, 40)]"'
        (root / "l.csv").write_text(
            "\n".join(["image_id,geometry,class", *(f"{n},{shape},ship" for n in names)])
        )
    elif form == "coco":
        content = {
            "images": [{"id": n, "file_name": name} for n, name in enumerate(names)],
            "annotations": [
                {"id": n, "image_id": n, "category_id": 1, "segmentation": [[10, 10, 40, 10, 40, 40, 10, 40]]}
                for n in range(3)
            ],
            "categories": [{"id": 1, "name": "ship"}],
        }
        (root / "l.json").write_text(json.dumps(content))
    else:
        for name in "abc":
            (root / f"{name}.TXT").write_text("10 10 40 10 40 40 10 40 ship 0\n")
    label = {"csv": "l.csv", "coco": "l.json", "dota": "{name}.txt"}[form]
    result = build(root, BOXES % (label, form))
    row = files(result)
    assert result["samples"]["interactive"] == 3 and not result["quarantined"]
    assert not {"row_without_picture", "label_without_picture"} & row["dropped"].keys()
    assert row["noted"] == {"suffix_in_another_case": 4 if form == "dota" else 1}
