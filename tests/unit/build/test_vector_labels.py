"""Labels in map coordinates: which pixels they cover, in every form of file, and what is wrong with one."""

import json
import zipfile
from collections import Counter

import geopandas
import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import pytest
import shapely
from pyproj import Transformer
from rasterio.transform import Affine

from pipelines.build import BuildConfig, build_store
from pipelines.build.manifest import stamp
from pipelines.build.sources.base import UnusableImage
from pipelines.build.sources.registry import open_source
from pipelines.labels.stages import StageCounts
from pipelines.labels.tiling import Window
from tests.geotiffs import AT, UTM, scene, write
from tests.web_server import WebServer
from unigeoseg.errors import UserError

H, W = 60, 80
TABLE = """
licence: mine
layouts: [{{image: 'images/{{name}}.tif', labels: {labels}, boxes: vector, attribute: {attribute}}}]
classes:
  - {{name: house, category: 25 Building}}
  - {{name: '3', category: 79 Ship}}
  - {{name: shed, category: null}}
"""
#: In pixels of the picture: a house with a yard, one of two parts, one that reaches out, a shed, one beside
#: it. No edge goes through a pixel's centre, where rounding would decide.
YARD = shapely.Polygon(
    [(5.13, 5.07), (30.29, 8.11), (28.17, 30.31), (6.23, 26.19)],
    [[(12.07, 12.13), (20.11, 13.29), (19.23, 20.17), (11.31, 19.03)]],
)
PARTS = shapely.MultiPolygon([shapely.box(40, 5, 50, 15.4), shapely.box(55, 8, 62.6, 20)])
OUT = shapely.Polygon([(70.11, 40.23), (95.07, 45.13), (90.29, 70.17), (66.31, 55.03)])
SHIP, SHED, BESIDE = shapely.box(20, 40, 33, 48), shapely.box(1, 50, 9, 58), shapely.box(200, 200, 220, 220)
SHAPES = [YARD, PARTS, OUT, SHIP, SHED, BESIDE]
CLASSES = ["house", "house", "house", "3", "shed", "house"]
GEO = "georeference"


def on_earth(shape, at=AT, crs="EPSG:4326"):
    """A shape in pixels where it lies, by pyproj alone."""
    there = Transformer.from_crs(UTM, crs, always_xy=True)
    return shapely.transform(shape, lambda x, y: there.transform(*_map(at, x, y)), interleaved=False)


def _map(at, x, y):
    return at.a * x + at.b * y + at.c, at.d * x + at.e * y + at.f


def frame(shapes=SHAPES, classes=CLASSES, crs="EPSG:4326", at=AT):
    return geopandas.GeoDataFrame(
        {"kind": classes, "other": range(len(shapes))},
        geometry=[None if s is None else on_earth(s, at, crs) for s in shapes],
        crs=crs,
    )


def nowhere():
    return frame().set_crs(None, allow_override=True)


def make(root, labels="labels.gpkg", attribute="kind", at=AT, height=H, width=W, **how):
    """A picture, its labels and a table in a folder; the folder."""
    write(root / "images" / "a.tif", scene(height, width), transform=at)
    save(frame(at=at, **how), root / labels)
    (root / "t.yaml").write_text(TABLE.format(labels=labels, attribute=attribute))
    return root


def save(content, path):
    if path.suffix == ".zip":
        content.to_file(path.with_suffix(".shp"))
        with zipfile.ZipFile(path, "w") as archive:
            for part in path.parent.glob(f"{path.stem}.*"):
                if part != path:
                    archive.write(part, part.name)
                    part.unlink()
    elif path.suffix in (".parquet", ".geoparquet"):  # what a frame's index is called is no object's number
        encoding = "WKB" if path.suffix == ".parquet" else "geoarrow"
        content.set_index("other", drop=False).to_parquet(path, geometry_encoding=encoding)
    else:
        content.to_file(path)


def read(root):
    """Masks by category of the first image, ``[n, H, W]`` each, and the row of the stage "boxes"."""
    source = open_source(str(root / "t.yaml"), root, BuildConfig(max_unknown_share=0.5))
    opened = source.read(next(iter(source.items())))
    found = {}
    for region in opened.cut(Window(0, 0, opened.height, opened.width)).regions:
        found.setdefault(region.category_id, []).append(region.full(opened.height, opened.width))
    counts = StageCounts()
    opened.count(counts)
    return found, next(row for row in counts.rows() if row["name"] == "boxes")


def covered(shape, at=AT, crs="EPSG:4326", upright=None):
    """Which pixels' centres lie in a shape: each centre is brought to the labels' coordinates."""
    there = Transformer.from_crs(UTM, crs, always_xy=True)
    y, x = np.mgrid[:H, :W] + 0.5
    return shapely.contains_xy(on_earth(shape, at, crs), *there.transform(*_map(upright or at, x, y)))


@pytest.mark.parametrize(
    ("labels", "crs"),
    [
        ("labels.gpkg", "EPSG:4326"),
        ("labels.geojson", "EPSG:4326"),
        ("labels.fgb", "EPSG:3857"),
        ("labels.shp", UTM),
        ("labels.zip", "EPSG:4326"),
        ("labels.parquet", "EPSG:3857"),
        ("labels.parquet", "OGC:CRS84"),
        ("{name}.gpkg", "EPSG:32634"),
    ],
)
def test_the_pixels_whose_centres_lie_in_a_polygon(tmp_path, labels, crs):
    root = make(tmp_path, "labels.gpkg" if "{" in labels else labels, crs=crs)
    if "{" in labels:
        (root / "labels.gpkg").rename(root / "a.gpkg")
        (root / "t.yaml").write_text(TABLE.format(labels=f"'{labels}'", attribute="kind"))
    found, row = read(root)
    assert found.keys() == {25, 79}
    for masks, shapes in ((found[25], (YARD, PARTS, OUT)), (found[79], (SHIP,))):
        wanted = [covered(shape, crs=crs) for shape in shapes]
        if labels == "labels.fgb":  # which orders its objects by place
            masks, wanted = (sorted(some, key=np.sum) for some in (masks, wanted))
        assert len(masks) == len(wanted)
        assert all((mask == one).all() for mask, one in zip(masks, wanted, strict=True))
    assert covered(YARD).sum() > 300 and not covered(YARD)[16, 15]  # the yard is none of the house
    assert (row["in"], row["out"], row["dropped"]) == (5, 4, {"ignored_class": 1})
    assert row["noted"] == {"clipped": 1, "mask from segmentation": 4}


def test_a_picture_that_is_turned_and_one_whose_rows_run_north(tmp_path):
    turned = Affine.translation(400000, 5600000) @ Affine.rotation(30) @ Affine.scale(0.5, -0.5)
    found, _ = read(make(tmp_path / "turned", at=turned))
    assert (found[79][0] == covered(SHIP, turned)).all() and found[79][0].any()

    north = Affine(0.5, 0, 400000, 0, 0.5, 5600000)
    found, _ = read(make(tmp_path / "north", at=north))
    upright = north @ Affine(1, 0, 0, 0, -1, H)
    assert (found[79][0] == covered(SHIP, north, upright=upright)).all()
    assert (found[79][0][::-1] == covered(SHIP, north)).all()


def test_a_class_for_all_and_layers(tmp_path):
    root = make(tmp_path)
    one = "\n".join(
        (
            "licence: mine",
            "layouts: [{image: 'images/{name}.tif', labels: labels.gpkg, boxes: vector, layer: LAYER}]",
            "classes: [{name: thing, category: 25 Building}]",
        )
    )
    frame().to_file(root / "labels.gpkg", layer="second")
    (root / "t.yaml").write_text(one.replace("LAYER", "second"))
    assert len(read(root)[0][25]) == 5
    for name in ("null", "third"):
        (root / "t.yaml").write_text(one.replace("LAYER", name))
        with pytest.raises(UserError, match=r"layers? .*labels, second: set layer in the layout"):
            read(root)
    (root / "t.yaml").write_text(TABLE.format(labels="labels.gpkg", attribute="null"))
    with pytest.raises(UserError, match=r"attribute: …\), or leave one class"):
        read(root)


def test_numbers_as_classes(tmp_path):
    root = make(tmp_path, shapes=[SHIP, PARTS, YARD], classes=[3, 3, None])
    found, row = read(root)
    assert len(found[79]) == 2 and 25 not in found
    assert row["dropped"] == {"unknown_class": 1}
    save(frame([SHIP, PARTS], [3.5, None]), root / "labels.gpkg")
    with pytest.raises(UserError, match=r"labels\.gpkg: class '(3\.5|no value)' \(1 objects\) is not in the"):
        read(root)


def test_a_picture_without_objects_has_none(tmp_path):
    root = make(tmp_path, "labels.geojson")
    (root / "labels.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    found, row = read(root)
    assert not found and row["in"] == 0
    save(frame([BESIDE], ["house"]), root / "labels.gpkg")
    (root / "t.yaml").write_text(TABLE.format(labels="labels.gpkg", attribute="kind"))
    assert not read(root)[0]


def test_what_is_no_polygon_is_counted_and_named(tmp_path):
    line, nothing = shapely.LineString([(3, 3), (30, 30)]), shapely.Polygon()
    mixed = shapely.GeometryCollection([shapely.Point(1, 1), SHIP])
    root = make(
        tmp_path,
        "labels.geojson",
        shapes=[line, nothing, mixed, None],
        classes=["house", "house", "3", "house"],
    )
    found, row = read(root)
    assert (found[79][0] == covered(SHIP)).all() and 25 not in found
    assert row["dropped"] == {"no_area": 1, "degenerate": 2}
    assert row["named"]["no_area"] == ["labels.geojson, a.tif: house 0"]
    assert row["named"]["degenerate"] == [f"labels.geojson, a.tif: house {n}" for n in (1, 3)]

    content = json.loads((root / "labels.geojson").read_text())  # a ring that is none spoils no other object
    content["features"][0]["geometry"] = {"type": "Polygon", "coordinates": [[[0, 0], [1, 0]]]}
    (root / "labels.geojson").write_text(json.dumps(content))
    again, row = read(root)
    assert (again[79][0] == found[79][0]).all() and row["dropped"] == {"degenerate": 3}


def test_a_geoparquet_of_other_kinds(tmp_path):
    """Geometries as Arrow's lists, a column that tells no class, bytes that are no geometry."""
    plain = [YARD, OUT, SHIP, SHED]
    kinds = ["house", "house", "3", "shed"]
    root = make(tmp_path, "labels.geoparquet", shapes=plain, classes=kinds, crs="EPSG:3857")
    assert pq.read_schema(root / "labels.geoparquet").field("geometry").type != pa.binary()
    found, _ = read(root)
    assert (found[25][0] == covered(YARD, crs="EPSG:3857")).all() and len(found[25]) == 2

    (root / "t.yaml").write_text(TABLE.format(labels="labels.parquet", attribute="kind"))
    content = frame(plain, kinds)
    content["parts"] = [[1], [2], [3], [4]]
    content.to_parquet(root / "labels.parquet")
    table = pq.read_table(root / "labels.parquet")
    binary = table.column("geometry").to_pylist()
    broken = pa.array([binary[0], b"\x01\x03", None, shapely.Polygon().wkb], pa.binary())
    where = table.schema.get_field_index("geometry")
    pq.write_table(table.set_column(where, table.schema.field(where), broken), root / "labels.parquet")
    found, row = read(root)
    assert (found[25][0] == covered(YARD)).all() and len(found) == 1
    assert row["dropped"] == {"degenerate": 2, "ignored_class": 1}
    assert row["named"]["degenerate"] == [f"labels.parquet, a.tif: {n}" for n in ("3 2", "house 1")]

    (root / "t.yaml").write_text(TABLE.format(labels="labels.parquet", attribute="parts"))
    with pytest.raises(UserError, match=r"no field 'parts'; its fields are kind, other: set attribute"):
        read(root)
    (root / "t.yaml").write_text(
        TABLE.format(labels="labels.parquet", attribute="kind").replace("vector,", "vector, layer: x,")
    )
    with pytest.raises(UserError, match=r"no layer 'x'; its layers are labels: set layer"):
        read(root)


@pytest.mark.parametrize("part", ["shp", "dbf", "prj"])
def test_all_parts_of_a_shapefile_are_watched(tmp_path, part):
    """Classes stand in the .dbf: a build that goes on after they were changed begins those pictures anew."""
    root = make(tmp_path, "labels.shp")
    items = list(open_source(str(root / "t.yaml"), root, BuildConfig()).items())
    before = stamp(items)
    with (root / f"labels.{part}").open("ab") as file:
        file.write(b"0")
    assert stamp(items) != before


@pytest.mark.parametrize("labels", ["labels.gpkg", "labels.json", "labels.zip"])
def test_a_file_that_names_others_is_not_followed(tmp_path, labels):
    """GDAL knows its VRT and its pipelines by their content, whatever the suffix says."""
    root = make(tmp_path)
    save(frame(), root / "other.gpkg")
    vrt = (
        "<OGRVRTDataSource><OGRVRTLayer name='other'>"
        f"<SrcDataSource>{root / 'other.gpkg'}</SrcDataSource></OGRVRTLayer></OGRVRTDataSource>"
    )
    command = {
        "type": "gdal_streamed_alg",
        "command_line": f"gdal vector pipeline ! read {root / 'other.gpkg'}",
    }
    (root / "labels.gpkg").write_text(vrt)
    (root / "labels.json").write_text(json.dumps(command))
    with zipfile.ZipFile(root / "labels.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("labels.vrt", vrt)
    (root / "t.yaml").write_text(TABLE.format(labels=labels, attribute="kind"))
    with pytest.raises(UnusableImage, match="names other files") as raised:
        read(root)
    assert raised.value.reason == "unreadable_labels"


def test_an_archive_holds_no_other_form(tmp_path):
    root = make(tmp_path, "labels.zip")
    with zipfile.ZipFile(root / "labels.zip", "w") as archive:
        archive.writestr("labels.csv", f'WKT,kind\n"{on_earth(SHIP).wkt}",3\n')
        archive.writestr("labels.csvt", "WKT,String\n")
    with pytest.raises(UnusableImage, match="of the kind CSV, not GPKG"):
        read(root)


def test_a_geoparquet_is_read_once_in_a_process(tmp_path, monkeypatch):
    root = make(tmp_path, "labels.parquet")
    source, asked = open_source(str(root / "t.yaml"), root, BuildConfig()), Counter()
    monkeypatch.setattr(pq, "read_table", _counting("read_table", pq.read_table, asked))
    (item,) = source.items()
    for _ in range(3):
        source.read(item)
    assert asked == {"read_table": 1}


def test_a_geojson_is_read_once_in_a_process(tmp_path, monkeypatch):
    root = make(tmp_path, "labels.geojson")
    source, asked = open_source(str(root / "t.yaml"), root, BuildConfig()), Counter()
    for name in ("list_layers", "read_info", "read_dataframe"):
        monkeypatch.setattr(pyogrio, name, _counting(name, getattr(pyogrio, name), asked))
    (item,) = source.items()
    for _ in range(3):
        source.read(item)
    assert asked == {"list_layers": 1, "read_info": 1, "read_dataframe": 1}
    save(frame([SHIP], ["3"]), root / "labels.geojson")
    assert [one.category_id for one in source.read(item)._objects.shapes] == [79]  # another file by that name


def _counting(name, call, asked):
    def counted(*args, **options):
        asked[name] += 1
        return call(*args, **options)

    return counted


@pytest.mark.parametrize(
    ("labels", "change", "reason", "says"),
    [
        ("gpkg", lambda root, file: write(root / "images/a.tif", scene(H, W), None, None), GEO, "a_srs"),
        ("gpkg", lambda root, file: nowhere().to_file(file), GEO, "the layer names no"),
        ("parquet", lambda root, file: save(nowhere(), file), GEO, "the layer names no"),
        ("gpkg", lambda root, file: file.write_bytes(b"no database"), "unreadable_labels", "repair"),
        ("parquet", lambda root, file: file.write_bytes(b"PAR1"), "unreadable_labels", "repair"),
        (
            "parquet",
            lambda root, file: pandas.DataFrame({"kind": ["3"]}).to_parquet(file),
            "unreadable_labels",
            "no geometries",
        ),
        ("gpkg", lambda root, file: file.unlink(), "missing_labels", "no such file"),
    ],
)
def test_labels_that_lie_nowhere(tmp_path, labels, change, reason, says):
    root = make(tmp_path, f"labels.{labels}")
    source = open_source(str(root / "t.yaml"), root, BuildConfig())
    item = next(iter(source.items()))
    change(root, root / f"labels.{labels}")
    with pytest.raises(UnusableImage, match=says) as raised:
        source.read(item)
    assert raised.value.reason == reason


def test_errors_that_name_the_way_out(tmp_path):
    root = make(tmp_path, attribute="sort")
    with pytest.raises(UserError, match=r"no field 'sort'; its fields are kind, other: set attribute"):
        read(root)
    (root / "labels.gpkg").rename(root / "labels.kml")
    (root / "t.yaml").write_text(TABLE.format(labels="labels.kml", attribute="kind"))
    with pytest.raises(UserError, match=r"labels\.kml: vector labels are one of \.gpkg, \.fgb, \.shp"):
        read(root)
    (root / "t.yaml").write_text(
        TABLE.format(labels="labels.kml", attribute="kind").replace("vector", "coco")
    )
    with pytest.raises(UserError, match="attribute is for boxes: vector"):
        read(root)


def test_labels_that_lie_elsewhere_are_no_empty_store(tmp_path):
    root = make(tmp_path)
    save(frame(crs=UTM).set_crs("EPSG:32634", allow_override=True), root / "labels.gpkg")
    with pytest.raises(UserError, match=r"1 tiles, 0 regions.*No label lies on a picture: .*coordinate s"):
        build_store(str(root / "t.yaml"), root, tmp_path / "out", BuildConfig(workers=0), progress=False)


@pytest.mark.parametrize("labels", ["labels.gpkg", "labels.geojson", "labels.parquet"])
def test_from_a_web_server_as_from_a_folder(tmp_path, labels):
    root = make(tmp_path, labels)
    here, _ = read(root)
    with WebServer(root) as server:
        source = open_source(str(root / "t.yaml"), server.url, BuildConfig())
        opened = source.read(next(iter(source.items())))
        regions = opened.cut(Window(0, 0, H, W)).regions
    assert [r.category_id for r in regions] == [25, 25, 25, 79]
    assert all((r.full(H, W) == mask).all() for r, mask in zip(regions, [*here[25], *here[79]], strict=True))


def test_a_build_of_two_pictures_and_one_file(tmp_path, no_sheets):
    """The same bytes whatever form the labels have; no tile has what lies on the other picture."""
    size, other = 128, Affine(0.5, 0, 400000 + 64, 0, -0.5, 5600000)
    stores = []
    for labels in ("labels.gpkg", "labels.geojson", "labels.parquet"):
        root = make(tmp_path / labels, labels, height=size, width=size)
        write(root / "images" / "b.tif", scene(size, size, 1), transform=other)
        houses = [shapely.box(x, y, x + 30, y + 24) for x in (10, 70, 150, 200) for y in (12, 80)]
        save(frame(houses, ["house"] * 8), root / labels)
        config = BuildConfig(workers=0, tile={"size": size, "stride": size})
        build_store(str(root / "t.yaml"), root, tmp_path / "out" / labels, config, progress=False)
        card = json.loads((tmp_path / "out" / labels / "dataset.json").read_text())
        row = next(r for r in card["stages"] if r["name"] == "boxes")
        assert row["in"] == row["out"] == 8
        stores.append(
            b"".join(p.read_bytes() for p in sorted((tmp_path / "out" / labels / "shards").iterdir()))
        )
    assert stores[0] == stores[1] == stores[2]
