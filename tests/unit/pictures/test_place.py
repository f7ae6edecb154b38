"""Labels on their pictures: turned with them, laid by georeference, or refused by name."""

import json
import warnings

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import Affine

from pipelines.build import BuildConfig
from pipelines.build.sources.registry import open_source
from pipelines.labels.stages import StageCounts
from pipelines.labels.tiling import Window
from pipelines.pictures.errors import UnusableImage
from pipelines.pictures.turn import turn_pixels, turn_points, turned_size

H, W = 40, 60
TABLE = """
licence: mine
layouts: [{image: 'i/{name}.%s', %s}]
classes: [{name: rest, value: 0, category: null}, {name: house, value: 1, category: 25 Building}]
"""
HOUSE = np.zeros((H, W), np.uint8)
HOUSE[5:15, 30:50] = 1
PIXELS = np.where(HOUSE[..., None] > 0, 220, 60).repeat(3, 2).astype(np.uint8)
NORTH = Affine(0.5, 0, 500000, 0, -0.5, 4000000)


@pytest.mark.parametrize("turn", range(1, 9))
def test_points_follow_their_pixels(turn):
    rng = np.random.default_rng(turn)
    for _ in range(20):
        y, x = int(rng.integers(H)), int(rng.integers(W))
        mark = np.zeros((H, W), np.uint8)
        mark[y, x] = 1
        turned = turn_pixels(mark, turn)
        assert turned.shape == turned_size(H, W, turn)
        ((tx, ty),) = turn_points(np.asarray([[x + 0.5, y + 0.5]]), H, W, turn)
        assert turned[int(ty), int(tx)] == 1


def put(file, values, transform=None, crs="EPSG:32633"):
    file.parent.mkdir(exist_ok=True, parents=True)
    bands = np.moveaxis(np.atleast_3d(values), -1, 0)
    placed = {} if transform is None else {"crs": crs, "transform": transform}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        size = {"height": bands.shape[1], "width": bands.shape[2], "count": len(bands)}
        with rasterio.open(file, "w", driver="GTiff", dtype=bands.dtype, **size, **placed) as data:
            data.write(bands)


def read(root, suffix="tif", labels="mask: 'm/{name}.tif'"):
    """The picture and its labels (or regions), and the counts."""
    (root / "t.yaml").write_text(TABLE % (suffix, labels))
    source = open_source(str(root / "t.yaml"), root, BuildConfig())
    opened = source.read(next(iter(source.items())))
    rows = [Window(y, 0, min(16, opened.height - y), opened.width) for y in range(0, opened.height, 16)]
    parts = [opened.cut(window) for window in rows]
    counts = StageCounts()
    opened.count(counts)
    return parts, counts


def joined(parts):
    return np.concatenate([p.pixels for p in parts]), np.concatenate([p.labels for p in parts])


PLACES = {
    "same": (HOUSE, NORTH),
    "no georeference": (HOUSE, None),
    "shifted": (np.roll(HOUSE, (3, -4), (0, 1)), NORTH @ Affine.translation(4, -3)),
    "south-up": (HOUSE[::-1], Affine(0.5, 0, 500000, 0, 0.5, 4000000 - H * 0.5)),
    "coarser": (HOUSE[::5, ::5], NORTH @ Affine.scale(5)),
    "larger": (np.pad(HOUSE, 7), NORTH @ Affine.translation(-7, -7)),
}


@pytest.mark.parametrize("name", sorted(PLACES))
def test_a_mask_lies_where_its_georeference_says(name, tmp_path):
    values, transform = PLACES[name]
    put(tmp_path / "i" / "a.tif", PIXELS, NORTH)
    put(tmp_path / "m" / "a.tif", values, transform)
    parts, counts = read(tmp_path)
    pixels, labels = joined(parts)
    assert (pixels == PIXELS).all() and ((labels == 25) == (HOUSE > 0)).all()
    row = next(r for r in counts.rows() if r["name"] == "standardise")
    assert row["dropped"].get("no_data", 0) == (4 * H + 3 * W - 12 if name == "shifted" else 0)


def test_another_coordinate_system_is_met_to_the_pixel(tmp_path):
    from rasterio.warp import Resampling, calculate_default_transform, reproject

    bounds = rasterio.transform.array_bounds(H, W, NORTH)
    at, w, h = calculate_default_transform("EPSG:32633", "EPSG:4326", W, H, *bounds, resolution=1e-6)
    there = np.zeros((h, w), np.uint8)
    reproject(
        HOUSE, there, src_transform=NORTH, src_crs="EPSG:32633", dst_transform=at, dst_crs="EPSG:4326",
        resampling=Resampling.nearest,
    )  # fmt: skip
    put(tmp_path / "i" / "a.tif", PIXELS, NORTH)
    put(tmp_path / "m" / "a.tif", there, at, "EPSG:4326")
    labels = joined(read(tmp_path)[0])[1]
    assert ((labels == 25) != (HOUSE > 0)).sum() <= 4


def test_a_picture_whose_rows_run_north_is_turned_and_its_mask_with_it(tmp_path):
    up = Affine(0.5, 0, 500000, 0, 0.5, 4000000 - H * 0.5)
    put(tmp_path / "i" / "a.tif", PIXELS[::-1], up)
    for values, transform in ((HOUSE[::-1], up), (HOUSE, NORTH), (HOUSE[::-1], None)):
        put(tmp_path / "m" / "a.tif", values, transform)
        pixels, labels = joined(read(tmp_path)[0])
        assert (pixels == PIXELS).all() and ((labels == 25) == (HOUSE > 0)).all()


def test_masks_that_lie_elsewhere_are_refused_naming_both(tmp_path):
    put(tmp_path / "i" / "a.tif", PIXELS, NORTH)
    put(tmp_path / "m" / "a.tif", HOUSE, NORTH @ Affine.translation(1000, 0))
    with pytest.raises(UnusableImage, match=r"m/a\.tif: the mask lies elsewhere .* a\.tif.*overlap"):
        read(tmp_path)
    put(tmp_path / "m" / "a.tif", HOUSE, NORTH @ Affine.translation(9, 0), crs=None)
    with pytest.raises(UnusableImage, match="one of them names no coordinate system"):
        read(tmp_path)
    put(tmp_path / "m" / "a.tif", HOUSE[:-1])
    with pytest.raises(UnusableImage, match="the mask is 60x39 pixels, its image 60x40"):
        read(tmp_path)


def oriented(file, turn):
    """A picture that is seen as ``PIXELS`` once it is turned."""
    back = {6: 8, 8: 6}.get(turn, turn)
    exif = Image.Exif()
    exif[0x0112] = turn
    file.parent.mkdir(exist_ok=True)
    Image.fromarray(turn_pixels(PIXELS, back)).save(file, exif=exif)
    return back


@pytest.mark.parametrize("turn", range(1, 9))
def test_masks_and_boxes_follow_a_turned_picture(turn, tmp_path):
    back = oriented(tmp_path / "i" / "a.png", turn)
    (tmp_path / "m").mkdir()
    stored = turn_pixels(HOUSE, back)
    Image.fromarray(stored).save(tmp_path / "m" / "a.png")  # drawn on the stored pixels
    pixels, labels = joined(read(tmp_path, "png", "mask: 'm/{name}.png'")[0])
    assert (pixels == PIXELS).all() and ((labels == 25) == (HOUSE > 0)).all()
    if turn > 4:
        Image.fromarray(HOUSE).save(tmp_path / "m" / "a.png")  # drawn on the picture as it is seen
        labels = joined(read(tmp_path, "png", "mask: 'm/{name}.png'")[0])[1]
        assert ((labels == 25) == (HOUSE > 0)).all()
    for mask in (stored, HOUSE) if turn > 4 else (stored,):
        ys, xs = np.nonzero(mask)
        ends = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
        for form in ("voc", "labelme", "coco"):
            write_labels(tmp_path, form, mask.shape, [int(v) for v in ends])
            parts, _ = read(tmp_path, "png", f"labels: 'labels.{form}', boxes: {form}")
            assert boxes_of(parts) == [(30, 5, 50, 15)], form


def boxes_of(parts):
    """Boxes of the regions of strips of 16 rows, the house being in the first."""
    return [(r.x0, r.y0, r.x1, r.y1) for part in parts for r in part.regions]


def write_labels(root, form, size, ends):
    (h, w), (x0, y0, x1, y1) = size, ends
    file = root / f"labels.{form}"
    if form == "voc":
        box = f"<xmin>{x1}</xmin><ymin>{y0 + 1}</ymin><xmax>{x0 + 1}</xmax><ymax>{y1}</ymax>"  # ends swapped
        file.write_text(
            f"<annotation><size><width>{w}</width><height>{h}</height></size><object><name>house</name>"
            f"<bndbox>{box}</bndbox></object></annotation>"
        )
    elif form == "labelme":
        shape = {"label": "house", "points": [[x1, y1], [x0, y0]], "shape_type": "rectangle"}
        file.write_text(json.dumps({"imageHeight": h, "imageWidth": w, "shapes": [shape]}))
    else:
        ring = [x0, y0, x1, y0, x1, y1, x0, y1]
        file.write_text(
            json.dumps(
                {
                    "images": [{"id": 1, "file_name": "a.png", "width": w, "height": h}],
                    "annotations": [{"id": 1, "image_id": 1, "category_id": 3, "segmentation": [ring]}],
                    "categories": [{"id": 3, "name": "house"}],
                }
            )
        )


@pytest.mark.parametrize("form", ["voc", "labelme", "coco"])
def test_labels_of_a_picture_of_another_size_are_refused_naming_both(form, tmp_path):
    oriented(tmp_path / "i" / "a.png", 1)
    write_labels(tmp_path, form, (4 * H, 4 * W), [120, 20, 200, 60])
    with pytest.raises(UnusableImage, match="on a picture of 240x160 pixels, this one is 60x40") as found:
        read(tmp_path, "png", f"labels: 'labels.{form}', boxes: {form}")
    assert found.value.reason == "labels_size"


def test_one_bad_box_costs_itself_alone_and_is_named(tmp_path):
    oriented(tmp_path / "i" / "a.png", 1)
    write_labels(tmp_path, "voc", (H, W), [30, 5, 50, 15])
    file = tmp_path / "labels.voc"
    whole = file.read_text()
    bad = whole[whole.index("<object>") : whole.index("</annotation>")].replace("<xmin>50", "<xmin>50,5")
    file.write_text(whole.replace("</annotation>", bad + "</annotation>"))
    parts, counts = read(tmp_path, "png", "labels: 'labels.voc', boxes: voc")
    row = next(r for r in counts.rows() if r["name"] == "boxes")
    assert boxes_of(parts) == [(30, 5, 50, 15)] and row["dropped"] == {"coordinates": 1}
    assert row["named"] == {"coordinates": ["labels.voc, a.png: house 2"]}


def test_objects_show_only_where_the_picture_has_data(tmp_path):
    clear = np.full((H, W), 255, np.uint8)
    clear[:, 40:] = 0
    (tmp_path / "i").mkdir()
    Image.fromarray(np.dstack([PIXELS, clear])).save(tmp_path / "i" / "a.png")
    write_labels(tmp_path, "voc", (H, W), [30, 5, 50, 15])
    parts, counts = read(tmp_path, "png", "labels: 'labels.voc', boxes: voc")
    assert boxes_of(parts) == [(30, 5, 40, 15)]
    assert next(r for r in counts.rows() if r["name"] == "boxes")["noted"]["no_data"] == 1
