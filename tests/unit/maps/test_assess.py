"""A map against the truth: every count by brute force, objects one to one, what cannot be compared."""

import json
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from click.testing import CliRunner
from pyproj import Geod, Transformer
from rasterio.transform import Affine
from rio_cogeo import cog_validate

from jobs.cli import cli
from jobs.map_assess import _assessment_text as printed
from pipelines.maps.assessment.assess import assess_map
from pipelines.maps.assessment.truth import Chosen
from pipelines.maps.make import make_map
from pipelines.maps.request import Request
from tests.geotiffs import AT, UTM, scene, write
from unigeoseg.errors import UserError

H, W = 600, 700
#: In pixels of the map; no edge goes through a pixel's centre.
LAKES = [
    shapely.Polygon([(20.13, 30.07), (220.29, 41.11), (181.37, 262.81), (35.23, 200.19)]),
    shapely.MultiPolygon([shapely.box(300, 50, 420.3, 130.4), shapely.box(500, 60, 530.2, 90.3)]),
    shapely.Polygon([(610.11, 500.23), (760.07, 520.13), (740.29, 660.17), (590.31, 640.03)]),  # reaches out
]
WOOD, AWAY = shapely.box(400.2, 400.3, 480.4, 560.2), shapely.box(2000, 2000, 2100, 2100)
ABOUT = {"instruction": "the lakes", "threshold": 0.5, "prompts": None}
SHAPES, KINDS = [*LAKES, WOOD, AWAY], ["lake", "lake", "lake", "wood", "lake"]


def on_earth(shape, crs="EPSG:4326", at=AT):
    """With corners so close that lines between them are straight in every CRS."""
    there = Transformer.from_crs(UTM, crs, always_xy=True)
    return shapely.transform(
        shapely.segmentize(shape, 8), lambda x, y: there.transform(*_map(at, x, y)), interleaved=False
    )


def _map(at, x, y):
    return at.a * x + at.b * y + at.c, at.d * x + at.e * y + at.f


def covered(shapes, crs="EPSG:4326"):
    """Which pixels' centres lie in one of some shapes, each centre brought to the shapes' coordinates."""
    there = Transformer.from_crs(UTM, crs, always_xy=True)
    y, x = np.mgrid[:H, :W] + 0.5
    where = there.transform(*_map(AT, x, y))
    return np.any([shapely.contains_xy(on_earth(shape, crs), *where) for shape in shapes], axis=0)


def truth_file(path, crs="EPSG:4326", shapes=SHAPES, kinds=KINDS):
    frame = geopandas.GeoDataFrame({"kind": kinds}, geometry=[on_earth(s, crs) for s in shapes], crs=crs)
    frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_file(path)
    return str(path)


@pytest.fixture
def finished(tmp_path):
    """A map written by hand: its folder, mask and score."""
    rng = np.random.default_rng(0)
    near = np.clip(scene(H, W, bands=1)[0] / 255 * 0.5 + covered(LAKES) * 0.4, 0, 1)
    score = np.round(np.clip(near + rng.normal(0, 0.05, (H, W)), 0, 1) * 250).astype(np.uint8)
    mask = (score > 125).astype(np.uint8)
    for value, rows in ((254, slice(0, 37)), (255, slice(560, 600))):
        mask[rows, 100:300] = score[rows, 100:300] = value
    return by_hand(tmp_path / "map", mask, score), mask, score


def by_hand(folder, mask, score, crs=UTM, at=AT, objects=()):
    folder.mkdir(parents=True)
    for name, values in (("mask.tif", mask), ("score.tif", score)):
        write(folder / name, values[None], crs, at, nodata=255)
    (folder / "map.json").write_text(json.dumps(ABOUT))
    if len(objects):
        shapes = list(objects) if at is None else [on_earth(s, UTM, at) for s in objects]
        columns = {"id": [str(n) for n in range(len(objects))], "score_mean": 0.5}
        frame = geopandas.GeoDataFrame(columns, geometry=shapes, crs=crs)
        frame.to_file(folder / "objects.gpkg", layer="objects")
    return folder


def counted(mask, there, known):
    known = known & (mask < 254)
    found = mask == 1
    return {
        "compared": int(known.sum()),
        "both": int((found & there & known).sum()),
        "false": int((found & ~there & known).sum()),
        "missed": int((~found & there & known).sum()),
        "neither": int((~found & ~there & known).sum()),
        "left_out": int((~known & (mask != 255)).sum()),
    }


@pytest.mark.parametrize(
    ("file", "crs"), [("t.gpkg", "EPSG:4326"), ("t.geojson", "EPSG:4326"), ("t.parquet", "EPSG:32634")]
)
def test_polygons_pixel_by_pixel(tmp_path, finished, file, crs):
    folder, mask, score = finished
    chosen = Chosen(truth_file(tmp_path / file, crs), where=("kind", ("lake", "pond")))
    told = assess_map(folder, chosen, tmp_path / "out", progress=False)
    there = covered(LAKES, crs)
    wanted = counted(mask, there, np.ones((H, W), bool))
    assert told["pixels"] == wanted and wanted["both"] > 10_000 and wanted["left_out"] == 37 * 200
    both, false, missed = wanted["both"], wanted["false"], wanted["missed"]
    assert told["IoU"] == both / (both + false + missed) and told["precision"] == both / (both + false)
    assert told["recall"] == both / (both + missed) and told["F1"] == 2 * both / (2 * both + false + missed)
    assert told["accuracy"] == (both + wanted["neither"]) / wanted["compared"]
    with rasterio.open(tmp_path / "out/errors.tif") as errors:
        codes = errors.read(1)
        assert errors.crs == UTM and errors.transform == AT and errors.colormap(1)[2] == (193, 68, 60, 255)
    assert cog_validate(tmp_path / "out/errors.tif")[0]
    known = mask < 254
    expected = np.where(there, np.where(mask == 1, 1, 3), np.where(mask == 1, 2, 0))
    assert (codes == np.where(known, expected, 255)).all()

    geod, corners = Geod(ellps="WGS84"), [(0, 0), (W, 0), (W, H), (0, H)]
    lon, lat = Transformer.from_crs(UTM, "EPSG:4326", always_xy=True).transform(
        *zip(*(_map(AT, *c) for c in corners), strict=True)
    )
    pixel = abs(geod.polygon_area_perimeter(lon, lat)[0]) / (H * W)
    assert told["area_m2"]["map"] == pytest.approx((both + false) * pixel, rel=1e-5)
    assert told["area_m2"]["truth"] == pytest.approx((both + missed) * pixel, rel=1e-5)

    rows = told["thresholds"]["curve"]
    assert len(rows) == len(np.unique(score[known]))
    for row in rows[::17]:
        found = (score >= round(row["threshold"] * 250)) & known
        assert row["IoU"] == (found & there).sum() / ((found | there) & known).sum()
        assert row["precision"] == (found & there).sum() / found.sum()
    best = max(rows, key=lambda row: row["IoU"])
    assert told["thresholds"]["best"] == best and best["IoU"] >= told["IoU"]
    area, last = 0.0, 0.0
    for row in rows:
        area, last = area + (row["recall"] - last) * row["precision"], row["recall"]
    assert told["thresholds"]["average_precision"] == pytest.approx(area)
    low, high = told["spread"]["IoU"]
    assert low < told["IoU"] < high and told["squares"] == 9
    assert json.loads((tmp_path / "out/assessment.json").read_text()) == json.loads(json.dumps(told))


def test_an_area_and_a_raster_of_another_grid(tmp_path, finished):
    """A coarser raster that begins elsewhere and does not reach everywhere, with no data in it."""
    folder, mask, _ = finished
    at = AT @ Affine.translation(-31, 64) @ Affine.scale(3.3711)
    rng = np.random.default_rng(1)
    values = rng.integers(0, 4, (160, 190)).astype(np.uint8)
    values[40:60] = 9
    path = write(tmp_path / "truth.tif", values[None], UTM, at, nodata=9)
    y, x = np.mgrid[:H, :W] + 0.5
    column, row = ~at @ AT @ (x, y)
    row, column = np.floor(row).astype(int), np.floor(column).astype(int)
    inside = (row >= 0) & (column >= 0) & (row < 160) & (column < 190)
    own = np.where(inside, values[row.clip(0, 159), column.clip(0, 189)], 9)
    zone = [shapely.box(50.3, 80.2, 650.1, 333.3)]
    aoi = truth_file(tmp_path / "aoi.gpkg", shapes=zone, kinds=["all"])
    for counts, there in (((), own % 9 > 0), ((1.0, 3.0), np.isin(own, (1, 3)))):
        told = assess_map(folder, Chosen(path, values=counts), tmp_path / str(len(counts)), aoi, False)
        assert told["pixels"] == counted(mask, there, (own != 9) & covered(zone))
        assert told["objects"] is None and not (tmp_path / str(len(counts)) / "errors.gpkg").exists()


def test_what_a_raster_does_not_know(tmp_path, finished):
    """A mask inside the file, and values that are no number."""
    folder, mask, _ = finished
    unknown = np.zeros((H, W), bool)
    unknown[200:300] = True
    values = (np.arange(H * W).reshape(H, W) % 5 > 2).astype(np.float32)
    inside = write(tmp_path / "m.tif", values[None], UTM, AT, mask=np.where(unknown, 0, 255).astype(np.uint8))
    nan = write(tmp_path / "n.tif", np.where(unknown, np.nan, values)[None], UTM, AT)
    for number, path in enumerate((inside, nan)):
        told = assess_map(folder, Chosen(path), tmp_path / str(number), progress=False)
        assert told["pixels"] == counted(mask, values > 0, ~unknown)


def test_in_pixels(tmp_path):
    mask = np.zeros((40, 50), np.uint8)
    mask[10:20, 5:25] = 1
    folder = by_hand(tmp_path / "map", mask, mask * 250, None, None)
    there = np.zeros((40, 50), np.uint8)
    there[10:20, 15:35] = 7
    path = write(tmp_path / "t.tif", there[None], None, None)
    geopandas.GeoDataFrame(geometry=[shapely.box(15, 10, 35, 20)]).to_file(tmp_path / "t.gpkg")
    for number, file in enumerate((path, str(tmp_path / "t.gpkg"))):
        told = assess_map(folder, Chosen(file), tmp_path / str(number), progress=False)
        assert told["pixels"]["both"] == told["pixels"]["false"] == told["pixels"]["missed"] == 100
        assert told["IoU"] == pytest.approx(1 / 3) and told["area_m2"] is None and told["spread"] is None


def test_objects_one_to_one(tmp_path):
    same, half, lost = shapely.box(0, 0, 10, 10), shapely.box(20, 0, 30, 10), shapely.box(40, 0, 50, 10)
    found = [shapely.box(0, 0, 10, 9), shapely.box(20, 0, 24, 10), shapely.box(24.8, 0, 30, 10)]
    folder = by_hand(
        tmp_path / "map", np.zeros((20, 60), np.uint8), np.zeros((20, 60), np.uint8), objects=found
    )
    path = truth_file(tmp_path / "t.gpkg", shapes=[same, half, lost], kinds=["a"] * 3)
    told = assess_map(folder, Chosen(path), tmp_path / "out", progress=False)["objects"]
    assert (told["truth"], told["map"], told["matched"], told["missed"], told["false"]) == (3, 3, 2, 1, 1)
    assert told["mean_IoU"] == pytest.approx((0.9 + 0.52) / 2, rel=1e-6)
    assert told["precision"] == told["recall"] == told["F1"] == pytest.approx(2 / 3)
    missed = geopandas.read_file(tmp_path / "out/errors.gpkg", layer="missed")
    false = geopandas.read_file(tmp_path / "out/errors.gpkg", layer="false")
    assert missed["shape"].tolist() == [2] and missed["closest_iou"].tolist() == [0]
    assert missed.geometry[0].symmetric_difference(on_earth(lost, UTM)).area < 1e-6
    assert false["id"].tolist() == ["1"] and false["closest_iou"].tolist() == [0.4]


def test_objects_that_were_not_looked_at(tmp_path):
    """Where nothing was computed nothing is missed; an object that has one pixel elsewhere is."""
    mask = np.zeros((30, 60), np.uint8)
    mask[:, 20:] = 254
    mask[5:9, 2:8] = 1
    shapes = [shapely.box(2, 5, 8, 9), shapely.box(30, 5, 40, 20), shapely.box(19.2, 12.2, 33, 20.3)]
    folder = by_hand(tmp_path / "map", mask, mask, objects=shapes[:1])
    path = truth_file(tmp_path / "t.gpkg", shapes=shapes, kinds=["a"] * 3)
    told = assess_map(folder, Chosen(path), tmp_path / "out", progress=False)["objects"]
    assert (told["truth"], told["matched"], told["missed"], told["left_out"]) == (2, 1, 1, 1)


def test_a_maps_own_objects_are_all_found(tmp_path, export):
    """Through the command, on a map of a model's."""
    path = write(tmp_path / "a.tif", scene(150, 170), transform=AT)
    request = Request(
        model=export,
        inputs=(path,),
        out=str(tmp_path / "m"),
        text="the block",
        threshold=0.5,
        formats=("gpkg",),
    )
    made = make_map(request, progress=False)
    words = ["map", "assess", str(tmp_path / "m"), "--truth", str(tmp_path / "m/objects.gpkg")]
    done = CliRunner().invoke(cli, [*words, "--out", str(tmp_path / "o")], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert (
        f"objects    {made['objects']:,} of {made['objects']:,} found (IoU from 0.5 on), 0 missed, 0 false"
        in (done.output)
    )
    told = json.loads((tmp_path / "o/assessment.json").read_text())
    assert told["IoU"] == told["objects"]["mean_IoU"] == 1 and told["instruction"] == "the block"
    assert (tmp_path / "o/assessment.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        ({"path": "no.gpkg"}, r"no\.gpkg does not exist"),
        ({"path": "no.tif"}, r"no\.tif does not exist"),
        (
            {"path": "t.gpkg", "where": ("kind", ("pond",))},
            r"no shape whose kind is pond: there are lake, wood",
        ),
        ({"path": "t.gpkg", "where": ("sort", ("lake",))}, r"no field 'sort': its fields are kind"),
        ({"path": "t.gpkg", "layer": "x"}, r"t\.gpkg cannot be read"),
        ({"path": "two.gpkg"}, r"two\.gpkg has the layers a, b: name one with --layer"),
        ({"path": "t.gpkg", "values": (1.0,)}, r"holds shapes: --values is for a raster"),
        ({"path": "away.gpkg"}, r"has no polygon on .*map: look at its CRS"),
        ({"path": "three.tif"}, r"has 3 bands: the truth is one band of values"),
        ({"path": "small.tif"}, r"has 5 x 5 pixels.*the truth names no CRS"),
        ({"path": "small.tif", "layer": "x"}, r"is a raster: --where and --layer are for shapes"),
        ({"path": "pointer.tif"}, r"pointer\.tif cannot be read"),
        ({"path": "elsewhere.tif"}, r"knows nothing of it: look at their CRS"),
    ],
)
def test_truth_that_cannot_be_used(tmp_path, finished, monkeypatch, chosen, says):
    folder, _, _ = finished
    monkeypatch.chdir(tmp_path)
    truth_file(tmp_path / "t.gpkg")
    truth_file(tmp_path / "away.gpkg", shapes=[AWAY], kinds=["lake"])
    for layer in "ab":
        geopandas.read_file(tmp_path / "t.gpkg").to_file(tmp_path / "two.gpkg", layer=layer)
    write(tmp_path / "three.tif", np.zeros((3, H, W), np.uint8))
    write(tmp_path / "small.tif", np.zeros((1, 5, 5), np.uint8), None, None)
    write(tmp_path / "elsewhere.tif", np.ones((1, 5, 5), np.uint8), UTM, AT @ Affine.translation(5000, 0))
    (tmp_path / "pointer.tif").write_text('<VRTDataset rasterXSize="5" rasterYSize="5"></VRTDataset>')
    with pytest.raises(UserError, match=says):
        assess_map(folder, Chosen(**chosen), tmp_path / "out", progress=False)
    assert not list(tmp_path.glob("out/*"))


def test_what_is_printed_stays_short(tmp_path, finished):
    folder, _, _ = finished
    told = assess_map(folder, Chosen(truth_file(tmp_path / "t.gpkg")), tmp_path / "out", progress=False)
    best = told["thresholds"]["best"]
    assert f"threshold  {best['threshold']:.3f} would have the best IoU" in printed(told)
    told["thresholds"]["best"] = told["thresholds"]["curve"][-1]
    text = printed(told | {"warnings": [f"of {n}" for n in range(13)]})
    assert "none is better than to mark everything" in text
    assert text.count("warning: ") == 10 and "3 more warnings in assessment.json" in text


@pytest.mark.parametrize("damaged", ["map/mask.tif", "t.tif"])
def test_a_damaged_raster_is_named(tmp_path, finished, damaged):
    folder, _, _ = finished
    truth = write(tmp_path / "t.tif", np.ones((1, H, W), np.uint8), UTM, AT, tiled=True, compress="deflate")
    content = (tmp_path / damaged).read_bytes()
    (tmp_path / damaged).write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=rf"{damaged.split('/')[0]} cannot be read"):
        assess_map(folder, Chosen(truth), tmp_path / "out", progress=False)


def test_maps_and_folders_that_cannot_be_used(tmp_path, finished):
    folder, _, _ = finished
    truth = Chosen(truth_file(tmp_path / "t.gpkg"))
    with pytest.raises(UserError, match="holds no finished map"):
        assess_map(tmp_path, truth, tmp_path / "out", progress=False)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/file").write_text("mine")
    with pytest.raises(UserError, match=r"--out .*taken is not empty"):
        assess_map(folder, truth, tmp_path / "taken", progress=False)
    words = [
        "map",
        "assess",
        str(folder),
        "--truth",
        truth.path,
        "--out",
        str(tmp_path / "o"),
        "--where",
        "lake",
    ]
    assert "--where lake: give FIELD=VALUE" in CliRunner().invoke(cli, words).output
    (folder / "score.tif").unlink()
    with pytest.raises(UserError, match="is no whole map"):
        assess_map(folder, truth, tmp_path / "out", progress=False)


def test_what_a_person_should_know(tmp_path, finished):
    folder, _, _ = finished
    shapes = [shapely.box(50, 60, 90, 90), shapely.LineString([(1, 1), (90, 90)])]
    told = assess_map(
        folder,
        Chosen(truth_file(tmp_path / "t.gpkg", shapes=shapes, kinds=["a", "b"])),
        tmp_path / "o",
        None,
        False,
    )
    assert "no objects.gpkg" in told["warnings"][0] and told["objects"] is None
    assert "1 shapes of the truth are no polygons" in told["warnings"][1]
    assert "counts as false" in told["warnings"][2] and "--aoi" in told["warnings"][2]

    chosen = Chosen(truth_file(tmp_path / "all.gpkg", shapes=[*SHAPES, shapes[0]], kinds=[*KINDS, "hut"]))
    chosen = Chosen(chosen.path, where=("kind", ("hut",)))
    told = assess_map(folder, chosen, tmp_path / "rare", progress=False)
    assert len(told["warnings"]) == 1, "one small hut, and lakes drawn everywhere"


def test_a_map_of_several_rasters(tmp_path):
    """Together they are the sum of each; one without polygons counts, one outside the area does not."""
    rng = np.random.default_rng(0)
    inputs, places = [], {"a": 0, "b": W, "c": 2 * W, "d": 20 * W}
    for name, across in places.items():
        score = rng.integers(0, 251, (H, W)).astype(np.uint8)
        at = AT @ Affine.translation(across, 0)
        by_hand(tmp_path / "map" / name, (score > 125).astype(np.uint8), score, at=at)
        inputs.append({"outputs": {"mask": f"elsewhere/{name}/mask.tif"}, **ABOUT})
    (tmp_path / "map/map.json").write_text(json.dumps({"inputs": inputs}))
    lakes = [LAKES[0], shapely.box(600.2, 300.3, 900.4, 400.1)]
    truth = Chosen(truth_file(tmp_path / "t.gpkg", UTM, lakes, ["lake"] * 2))
    aoi = truth_file(tmp_path / "aoi.gpkg", UTM, [shapely.box(-5, -5, 2.5 * W, H)], ["all"])
    told = assess_map(tmp_path / "map", truth, tmp_path / "out", aoi, progress=False)
    assert [Path(row["map"]).name for row in told["inputs"]] == ["a", "b", "c"]
    for key in ("both", "false", "missed", "neither", "compared", "left_out"):
        assert told["pixels"][key] == sum(row["pixels"][key] for row in told["inputs"])
    assert told["pixels"]["compared"] == 2.5 * H * W
    assert told["area_m2"]["map"] == pytest.approx(sum(row["area_m2"]["map"] for row in told["inputs"]))
    third = told["inputs"][2]
    assert third["pixels"]["both"] == third["pixels"]["missed"] == 0 and third["recall"] is None
    assert told["squares"] == sum(row["squares"] for row in told["inputs"]) == 9 + 9 + 6
    assert told["thresholds"]["curve"][-1]["recall"] == 1 and "curve" not in told["inputs"][0]["thresholds"]
    assert "d: nothing of it was compared" in told["warnings"]
    for row in told["inputs"]:
        name = Path(row["map"]).name
        if name != "c":
            alone = assess_map(tmp_path / "map" / name, truth, tmp_path / f"alone-{name}", aoi, False)
            assert alone["pixels"] == row["pixels"]
        with rasterio.open(tmp_path / "out" / name / "errors.tif") as errors:
            assert errors.transform.c == AT.c + places[name] * 0.5
    assert not (tmp_path / "out/d").exists()
    with pytest.raises(UserError, match="has no polygon on"):
        assess_map(tmp_path / "map/c", truth, tmp_path / "alone", aoi, progress=False)
    none = write(tmp_path / "none.tif", np.zeros((1, H, W), np.uint8), UTM, AT @ Affine.translation(W, 0))
    told = assess_map(tmp_path / "map", Chosen(none), tmp_path / "none", progress=False)
    assert told["recall"] is None and told["precision"] == 0 and len(told["inputs"]) == 1
    away = Chosen(truth_file(tmp_path / "away.gpkg", UTM, [AWAY], ["lake"]))
    with pytest.raises(UserError, match=r"away.gpkg knows nothing of its 4 rasters: look"):
        assess_map(tmp_path / "map", away, tmp_path / "nothing", progress=False)
    assert not list((tmp_path / "nothing").iterdir())
