"""Many boxes: a label file of all images is parsed once, and a window looks at the boxes near it."""

import csv
from collections import Counter

import numpy as np
import pytest

from pipelines.build import BuildConfig, build_store
from pipelines.build.sources import annotations
from pipelines.build.sources.annotations import read_annotations
from pipelines.build.sources.boxes import BoxImage, Objects
from pipelines.build.sources.grid import Grid
from pipelines.config.building import TileConfig
from pipelines.labels.outlines import Outline
from pipelines.labels.tiling import Window, windows
from pipelines.pictures.picture import open_picture
from tests.unit.build.layouts import write_image

TABLE = (
    "licence: CC0-1.0\n"
    "layouts: [{image: '{name}.png', labels: all.csv, boxes: csv}]\n"
    "classes: [{name: ship, category: 79 Ship}]\n"
)


@pytest.fixture
def parsed(monkeypatch):
    """Counts the rows that are parsed."""
    rows = []

    class Counting(csv.DictReader):
        def __next__(self):
            row = super().__next__()
            rows.append(row)
            return row

    monkeypatch.setattr(annotations.csv, "DictReader", Counting)
    annotations._csv_rows.cache_clear()
    return rows


def write_rows(file, images, each=3):
    lines = ["image_id,geometry,class"]
    for i in range(images):
        for k in range(each):
            x, y = 5 + 20 * k, 4 + i
            corners = [(x, y), (x + 15, y), (x + 15, y + 20), (x, y + 20)]
            lines.append(f'p{i}.png,"{corners}",ship')
    file.write_text("\n".join(lines))


def test_a_label_file_of_all_images_is_parsed_once(tmp_path, parsed):
    write_rows(tmp_path / "all.csv", 30)
    for i in range(30):
        found = read_annotations(tmp_path / "all.csv", "csv", f"p{i}.png")
        assert [one.outline[0].tolist() for one in found] == [[5 + 20 * k, 4 + i] for k in range(3)]
    assert len(parsed) == 90
    assert not read_annotations(tmp_path / "all.csv", "csv", "other.png")
    write_rows(tmp_path / "all.csv", 2)  # another file under the same name
    assert not read_annotations(tmp_path / "all.csv", "csv", "p9.png") and len(parsed) == 96


def test_a_build_parses_a_row_as_often_for_many_images_as_for_few(tmp_path, parsed):
    for images in (2, 8):
        root = tmp_path / str(images)
        root.mkdir()
        write_rows(root / "all.csv", images)
        for i in range(images):
            write_image(root / f"p{i}.png", np.random.default_rng(i).integers(0, 255, (64, 80, 3), np.uint8))
        (root / "many.yaml").write_text(TABLE)
        parsed.clear()
        config = BuildConfig(workers=0, block_images=1)
        build_store(str(root / "many.yaml"), root, root / "s", config, progress=False, preview=False)
        assert len(parsed) <= 2 * 3 * images  # once for the names, once for the objects


def boxes_of(seed, number=300, height=1500, width=1800):
    rng = np.random.default_rng(seed)
    first = rng.uniform(-60, [width, height], (number, 2))
    sides = rng.exponential(40, (number, 2)) + 1
    sides[:3] = 2 * max(height, width)  # some cover everything
    return np.concatenate([first, first + sides], 1), height, width


@pytest.mark.parametrize("seed", range(6))
def test_near_boxes_are_those_that_share_a_pixel(seed):
    boxes, height, width = boxes_of(seed)
    grid = Grid([tuple(box) for box in boxes.tolist()], height, width)
    for window in [*windows(height, width, TileConfig()), Window(700, 3, 5, 1), Window(0, 0, height, width)]:
        bottom, right = window.y + window.height, window.x + window.width
        expected = [
            n
            for n, (x0, y0, x1, y1) in enumerate(boxes.tolist())
            if np.floor(x0) < right
            and np.ceil(x1) > window.x
            and np.floor(y0) < bottom
            and np.ceil(y1) > window.y
        ]
        assert grid.near(window) == expected
    assert Grid([], 10, 10).near(Window(0, 0, 10, 10)) == []


def test_a_window_draws_the_objects_in_it_and_no_others(tmp_path, monkeypatch):
    boxes, height, width = boxes_of(0, number=200)
    picture = tmp_path / "a.png"
    write_image(picture, np.zeros((height, width, 3), np.uint8))
    corners = [np.asarray([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]) for x0, y0, x1, y1 in boxes[3:].tolist()]
    shapes = [Outline(79, one) for one in corners]
    image = BoxImage(open_picture(picture), Objects(shapes=shapes), None)
    drawn = Counter()
    draw = Outline.draw

    def counting(self, window):
        drawn[window] += 1
        return draw(self, window)

    cuts = windows(height, width, TileConfig())
    expected = {w: [r for s in shapes if (r := s.draw(w)) is not None] for w in cuts}
    monkeypatch.setattr(Outline, "draw", counting)
    for window in cuts:
        found = image.cut(window).regions
        assert [(r.y0, r.x0, r.y1, r.x1) for r in found] == [
            (r.y0, r.x0, r.y1, r.x1) for r in expected[window]
        ]
        for one, other in zip(found, expected[window], strict=True):
            np.testing.assert_array_equal(one.crop, other.crop)
        assert drawn[window] <= len(expected[window]) + 3  # a box may touch a pixel and hold no centre
