"""What a person gets wrong: one message that names it and the way out, before anything is computed."""

import json
import shutil
import zipfile

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from rasterio.control import GroundControlPoint

import pipelines.maps.planning as planning
from jobs.cli import cli, run
from pipelines.maps.inputs import list_inputs
from pipelines.maps.make import make_map
from pipelines.maps.planning import plan_map, unknown_words
from pipelines.maps.request import Request
from pipelines.maps.work import Work
from pipelines.maps.workers import _Mappers
from pipelines.storage import libraries
from tests.geotiffs import AT, UTM, scene, write
from unigeoseg.errors import UserError
from unigeoseg.samples.tokens import train_tokenizer


def request(export, path, out, **more):
    asked = {} if {"question", "prompts", "text"} & set(more) else {"text": "the block"}
    return Request(**{"model": export, "inputs": (str(path),), "out": str(out), **asked, **more})


@pytest.fixture(scope="module")
def raster(tmp_path_factory):
    return write(tmp_path_factory.mktemp("bad") / "x.tif", scene(100, 120))


def gcps(path):
    with rasterio.open(path, "w", driver="GTiff", height=80, width=80, count=3, dtype="uint8") as file:
        file.write(scene(80, 80))
        points = [GroundControlPoint(r, c, 13 + c / 1e4, 52 - r / 1e4) for r in (0, 80) for c in (0, 80)]
        file.gcps = (points, "EPSG:4326")
    return path


def test_rasters_that_cannot_be_placed(export, tmp_path):
    bare = write(tmp_path / "bare.tif", scene(80, 80), crs=None)
    with pytest.raises(UserError, match=r"bare.tif names no CRS.*--crs EPSG:.*--pixels"):
        make_map(request(export, bare, tmp_path / "o"))
    with pytest.raises(UserError, match=r"ground control points alone.*gdalwarp -tps -t_srs"):
        make_map(request(export, gcps(tmp_path / "gcp.tif"), tmp_path / "o"))
    with pytest.raises(UserError, match="no coordinate system"):
        make_map(request(export, bare, tmp_path / "o", crs="EPSG:none"))
    placed = write(tmp_path / "placed.tif", scene(80, 80))
    with pytest.raises(UserError, match=r"is in EPSG:32633, and --crs says EPSG:4326"):
        make_map(request(export, placed, tmp_path / "o", crs="EPSG:4326"))
    with pytest.raises(UserError, match="--gsd has nothing"):
        make_map(request(export, bare, tmp_path / "o", pixels=True, gsd=1.0))
    with pytest.raises(UserError, match="metres a pixel, above 0"):
        make_map(request(export, placed, tmp_path / "o", gsd=-1.0))
    assert not (tmp_path / "o").exists()
    told = make_map(request(export, bare, tmp_path / "given", crs="EPSG:32633"), progress=False)
    assert told["crs"] == "EPSG:32633"


def test_a_vrt_is_refused_unless_it_is_allowed(export, raster, tmp_path):
    with rasterio.open(raster) as file:
        path = tmp_path / "x.vrt"
        path.write_text(
            f'<VRTDataset rasterXSize="{file.width}" rasterYSize="{file.height}">'
            f"<SRS>{file.crs.to_wkt()}</SRS>"
            f"<GeoTransform>{', '.join(str(v) for v in file.transform.to_gdal())}</GeoTransform>"
            + "".join(
                f'<VRTRasterBand dataType="Byte" band="{n}"><SimpleSource><SourceFilename>{raster}'
                f"</SourceFilename><SourceBand>{n}</SourceBand></SimpleSource></VRTRasterBand>"
                for n in (1, 2, 3)
            )
            + "</VRTDataset>"
        )
    with pytest.raises(UserError, match=r"x.vrt is a VRT.*--allow-vrt"):
        make_map(request(export, path, tmp_path / "o"))
    make_map(request(export, path, tmp_path / "vrt", allow_vrt=True), progress=False)
    make_map(request(export, raster, tmp_path / "tif"), progress=False)
    assert (tmp_path / "vrt/mask.tif").read_bytes() == (tmp_path / "tif/mask.tif").read_bytes()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"text": None}, "one of --prompts FILE, --text and --question"),
        ({"text": "a", "question": "b"}, "one of --prompts FILE"),
        ({"text": " "}, "--text is empty"),
        ({"text": "zq " * 400}, "too_long"),
        ({"scope": "scene", "gsd": 1.0}, "leave --gsd out"),
        ({"prompts": "p.gpkg", "scope": "scene"}, "goes with --text"),
        ({"prompts": "none.gpkg"}, "--prompts none.gpkg does not exist"),
        ({"aoi": "none.gpkg"}, "--aoi none.gpkg does not exist"),
        ({"bands": (7,)}, "band 7 is asked for"),
        ({"out": "s3://bucket/out"}, "give a folder"),
        ({"inputs": ("none.tif",)}, "none.tif does not exist"),
        ({"inputs": ()}, "give --input"),
        ({"model": "no/such/model"}, "no model at"),
    ],
)
def test_requests_that_cannot_be_done(export, raster, tmp_path, more, message):
    values = {"model": export, "inputs": (raster,), "out": str(tmp_path / "o"), "text": "the block"}
    if "prompts" in more:
        values["text"] = None
    with pytest.raises(UserError, match=message):
        make_map(Request(**{**values, **more}))


def test_vector_files_that_cannot_be_used(export, raster, tmp_path):
    (tmp_path / "damaged.gpkg").write_text("no database")
    with pytest.raises(UserError, match=r"damaged.gpkg cannot be read"):
        make_map(request(export, raster, tmp_path / "o", aoi=str(tmp_path / "damaged.gpkg")))
    for layer in ("known", "wanted"):
        points = geopandas.GeoDataFrame(geometry=[shapely.Point(400003, 5599997)], crs=UTM)
        points.to_file(tmp_path / "two.gpkg", layer=layer)
    with pytest.raises(UserError, match=r"two.gpkg has the layers known, wanted: give a file wit"):
        make_map(request(export, raster, tmp_path / "o", prompts=str(tmp_path / "two.gpkg")))
    bare = tmp_path / "bare.gpkg"
    geopandas.GeoDataFrame(geometry=[shapely.Point(5, 5)]).to_file(bare, driver="GPKG")
    with pytest.raises(UserError, match="has no CRS and"):
        make_map(request(export, raster, tmp_path / "o", prompts=str(bare)))
    bare.write_text(
        f"<OGRVRTDataSource><OGRVRTLayer name='a'><SrcDataSource>{tmp_path}/a.gpkg</SrcDataSource>"
        "</OGRVRTLayer></OGRVRTDataSource>"
    )
    archive = tmp_path / "bare.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("notes.txt", "what lies here")
        file.write(bare, "a.vrt")
    for path in (bare, archive):
        with pytest.raises(UserError, match=rf"{path.name} names other files or commands .*ogr2ogr"):
            make_map(request(export, raster, tmp_path / "o", aoi=str(path)))
    archive.write_bytes(b"PK\3\4" + archive.read_bytes()[150:])
    with pytest.raises(UserError, match=r"bare.zip cannot be read"):
        make_map(request(export, raster, tmp_path / "o", aoi=str(archive)))


def test_output_folders_that_are_taken(export, raster, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other/evaluation.json").write_text("{}")
    with pytest.raises(UserError, match="holds files of something else"):
        make_map(request(export, raster, tmp_path / "other"))
    make_map(request(export, raster, tmp_path / "o"), progress=False)
    with pytest.raises(UserError, match="holds a map: go on with it"):
        make_map(request(export, raster, tmp_path / "o"))
    with pytest.raises(UserError, match=r"holds another map \(text, threshold\)"):
        make_map(request(export, raster, tmp_path / "o", text="b", threshold=0.4, resume=True))
    again = tmp_path / "again.tif"
    shutil.copy(raster, again)
    make_map(request(export, again, tmp_path / "p"), progress=False)
    write(again, scene(100, 120, seed=5))
    with pytest.raises(UserError, match="a file that it was made of has changed"):
        make_map(request(export, again, tmp_path / "p", resume=True))


def test_one_process_at_a_time_makes_a_map(tmp_path):
    with Work(tmp_path), pytest.raises(UserError, match="another process makes the map"):
        Work(tmp_path)
    Work(tmp_path).close()


def test_space_and_amount(export, raster, tmp_path, monkeypatch):
    monkeypatch.setattr(planning, "MOST_WINDOWS", 3)
    with pytest.raises(UserError, match=r"6 windows: unigeoseg map plan.*--yes"):
        make_map(request(export, raster, tmp_path / "o"))
    monkeypatch.setattr(planning.shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(UserError, match="GiB free"):
        make_map(request(export, raster, tmp_path / "o", yes=True))
    assert not (tmp_path / "o").exists()


def test_a_missing_library_names_the_extra(monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(libraries.importlib, "import_module", missing)
    with pytest.raises(UserError, match=r"shapely is not installed.*pip install '\.\[map\]'"):
        libraries.check_libraries()


def test_words_that_the_model_does_not_know_are_warned_of(export, raster, tmp_path):
    texts = ["the round storage tanks, and the road", "a lake", "the lakes"] * 9
    own = train_tokenizer(texts, 600, tmp_path)
    assert unknown_words(own, "The tank beside the roads, lakes!") == ["beside"]
    assert unknown_words(own, "3 glaciers, glaciers") == ["glaciers"]
    told = make_map(request(export, raster, tmp_path / "b", text="the xqzvwkyyq"), progress=False)
    assert any("xqzvwkyyq" in warning for warning in told["warnings"])


def test_a_plan_counts_and_writes_nothing(export, raster, tmp_path):
    found = plan_map(request(export, raster, tmp_path / "o"), rate=2.0)
    assert (found["windows"], found["blocks"]) == (6, 1)
    assert found["hours"] == pytest.approx(6 / 2 / 3600) and found["gib"] > 0
    timed = plan_map(request(export, raster, tmp_path / "o", strides=1))
    assert timed["windows_per_second"] > 0 and timed["blocks"] == 9
    # Blocks of one stride: windows 0 and 1 of 2 rows and 3 columns are computed by two blocks each.
    twice = (1 + 2 + 1) / 2 * ((1 + 2 + 2) / 3)
    assert timed["hours"] * timed["windows_per_second"] * 3600 == pytest.approx(6 * twice)
    assert not (tmp_path / "o").exists()


def item(tmp_path, **assets):
    path = tmp_path / "item.json"
    path.write_text(json.dumps({"type": "Feature", "stac_version": "1.0.0", "assets": assets}))
    return str(path)


def test_stac_items(tmp_path):
    tiff = "image/tiff; application=geotiff; profile=cloud-optimized"
    band = {"href": "./B01.tif", "type": tiff}
    seen = {"href": "https://host/a/visual.tif", "type": tiff, "roles": ["visual"]}
    text = {"href": "meta.xml", "type": "application/xml"}
    assert list_inputs([item(tmp_path, meta=text, B01=band, tci=seen)], None) == ["https://host/a/visual.tif"]
    assert list_inputs([item(tmp_path, meta=text, B01=band)], None) == [f"{tmp_path}/B01.tif"]
    assert list_inputs([item(tmp_path, B01=band, tci=seen)], "B01") == [f"{tmp_path}/B01.tif"]
    with pytest.raises(UserError, match=r"--asset x: .* has B01"):
        list_inputs([item(tmp_path, B01=band)], "x")
    with pytest.raises(UserError, match="no raster among meta"):
        list_inputs([item(tmp_path, meta=text)], None)
    (tmp_path / "no.json").write_text("{}")
    with pytest.raises(UserError, match="is no STAC item"):
        list_inputs([str(tmp_path / "no.json")], None)


def test_the_command(export, raster, tmp_path, capsys):
    """``run`` may be left out; --json is what map.json holds."""
    out = tmp_path / "out"
    words = ["--model", export, "--input", raster, "--text", "the block", "--out", str(out), "--json"]
    with pytest.raises(SystemExit) as caught:
        run(cli, ["map", *words])
    assert not caught.value.code
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads((out / "map.json").read_text())
    assert {"windows", "computed", "skipped", "failed", "objects", "crs", "gsd", "outputs"} <= set(told)
    for name in ("mask", "score", "objects", "failed", "report"):
        assert told["outputs"][name].startswith(str(out))
    assert told["gsd"] == pytest.approx(0.5, rel=2e-3) and told["crs"] == "EPSG:32633"
    with pytest.raises(SystemExit) as caught:
        run(cli, ["map", "plan", *words, "--rate", "5"])
    assert set(json.loads(capsys.readouterr().out)) >= {"windows", "blocks", "hours", "gib"}
    with pytest.raises(SystemExit) as caught:
        run(cli, ["map", "run", *words])
    assert caught.value.code == 2
    with pytest.raises(SystemExit) as caught:
        run(cli, ["map", "export", str(out), "--format", "geojson", "--out", str(tmp_path / "e"), "--json"])
    assert "geojson" in json.loads(capsys.readouterr().out)["outputs"]
    assert AT.a == 0.5 and np.isfinite(told["gsd"])


@pytest.mark.parametrize("workers", ["many", "4-2", "0-3", "-1"])
def test_workers_that_are_no_number(export, raster, tmp_path, capsys, workers):
    words = [
        "map",
        "run",
        "--model",
        export,
        "--input",
        str(raster),
        "--text",
        "a",
        "--out",
        str(tmp_path / "o"),
    ]
    with pytest.raises(SystemExit) as ended:
        run(cli, [*words, f"--workers={workers}"])
    assert ended.value.code == 2
    assert "give a number, or two such as 1-8" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_workers_that_cannot_be_had(export, raster, tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    asked = request(export, raster, tmp_path / "o", workers=(500, 1000))
    with pytest.raises(UserError, match="--workers wants 500 CPUs, and this machine has"):
        make_map(asked, progress=False)
    with pytest.raises(UserError, match="--device is for this process"):
        make_map(request(export, raster, tmp_path / "o", workers=(1, 2), device="cuda:1"), progress=False)
    assert not (tmp_path / "o").exists()


def test_a_worker_that_cannot_load_the_model_says_so(export, raster, tmp_path):
    sheets = planning.lay_out(request(export, raster, tmp_path / "o"))

    def nowhere():
        raise UserError("no model at /elsewhere")

    outcome = _Mappers(sheets, nowhere).compute(0, 0)
    assert outcome.part is None and outcome.reason == "UserError: no model at /elsewhere"
