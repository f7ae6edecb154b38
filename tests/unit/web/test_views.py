"""Stores, evaluations and maps as the page asks for them."""

import json
from pathlib import Path

import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import requests

from pipelines.evaluate.evaluate import evaluate_store, write_evaluation
from pipelines.evaluate.models import ModelSource
from pipelines.evaluate.records import decode_mask
from pipelines.evaluate.worker import EvalJob
from pipelines.maps.make import make_map
from pipelines.maps.request import Request
from pipelines.web.app import Setup, create_app
from pipelines.web.backend import ThreadBackend
from tests.geotiffs import scene, write
from tests.unit.web.conftest import running
from unigeoseg.errors import UserError

HTML = '<img src=x onerror="document.title=1">'


def masks(found):
    return decode_mask(found["counts"], found["size"])


@pytest.fixture(scope="module")
def evaluations(tmp_path_factory, export, store):
    folder = tmp_path_factory.mktemp("evaluations")
    for name, threshold in (("one", 0.5), ("two", 0.3)):
        job = EvalJob(store, "train", ModelSource(export), keep_predictions=True, threshold=threshold)
        write_evaluation(evaluate_store(job), str(folder / name), save_predictions=True)
    return [str(folder / "one"), str(folder / "two")]


@pytest.fixture(scope="module")
def mapped(tmp_path_factory, export):
    folder = tmp_path_factory.mktemp("maps")
    raster = write(folder / "city.tif", scene(300, 420, seed=4))
    make_map(
        Request(model=export, inputs=(raster,), out=str(folder / "out"), text="the block"), progress=False
    )
    return folder / "out"


@pytest.fixture(scope="module")
def page(segmenter, export, store, evaluations, mapped):
    setup = Setup(store=store, evaluations=evaluations, maps=[str(mapped)])
    with running(ThreadBackend(segmenter, export), setup) as found:
        yield found


def test_samples_by_filter_and_by_page(page, store):
    table = pq.read_table(f"{store}/index.parquet").to_pylist()
    told = page.get("/v1/store").json()
    assert told["samples"] == len(table)
    assert {one["value"]: one["n"] for one in told["facets"]["task"]} == {
        task: sum(row["task"] == task for row in table) for task in {row["task"] for row in table}
    }
    found = page.get("/v1/store/samples?task=referring").json()
    assert found["n"] == sum(row["task"] == "referring" for row in table)
    assert all(one["task"] == "referring" for one in found["samples"])
    assert page.get("/v1/store/samples?task=nothing").json()["n"] == 0
    assert page.get("/v1/store/samples?page=1").json()["samples"] == []


def test_truth_answer_and_twin(page):
    rows = page.get("/v1/store/samples?task=interactive").json()["samples"]
    sample = page.get(f"/v1/store/samples/{rows[1]['row']}").json()
    truth = masks(sample["truth"])
    x0, y0, x1, y1 = (round(v) for v in sample["box"])
    assert truth[y0:y1, x0:x1].all() and truth.sum() == (y1 - y0) * (x1 - x0)
    answer = page.post(f"/v1/store/samples/{sample['row']}/answer", {}).json()
    mask = masks(answer["mask"])
    assert answer["hit"] == (truth & mask).sum() and answer["missed"] == (truth & ~mask).sum()
    assert answer["false"] == (mask & ~truth).sum()
    assert answer["iou"] == pytest.approx((truth & mask).sum() / (truth | mask).sum(), abs=1e-6)
    assert sample["twins"]
    twin = sample["twins"][0]["row"]
    other = page.post(f"/v1/store/samples/{sample['row']}/answer", {"instruction_of": twin}).json()
    assert other["instruction"] == page.get(f"/v1/store/samples/{twin}").json()["instruction"]
    again = masks(other["mask"])
    assert other["hit"] == (truth & again).sum()  # against its own truth
    stranger = page.get("/v1/store/samples?task=reasoning").json()["samples"][0]["row"]
    asked = page.post(f"/v1/store/samples/{sample['row']}/answer", {"instruction_of": stranger})
    assert asked.status_code == 404
    assert page.get("/v1/store/samples/99999").status_code == 404


def test_worst_first_and_two_models(page, evaluations):
    one, two = (pq.read_table(f"{folder}/per_sample.parquet").to_pylist() for folder in evaluations)
    told = page.get("/v1/evaluation").json()
    assert told["n"] == len(one) and len(told["models"]) == 2
    second = {row["sample_id"]: row["iou"] for row in two}
    found = page.get("/v1/evaluation/rows").json()["rows"]
    assert [line["ious"][0] for line in found] == sorted(row["iou"] for row in one)[: len(found)]
    assert all(line["ious"][1] == second[line["sample_id"]] for line in found)
    gains = [
        line["ious"][1] - line["ious"][0]
        for line in page.get("/v1/evaluation/rows?order=gain").json()["rows"]
    ]
    assert gains == sorted(gains, reverse=True)
    task = page.get("/v1/evaluation/rows?task=referring&order=best").json()
    assert task["n"] == sum(row["task"] == "referring" for row in one)
    assert [line["ious"][0] for line in task["rows"]] == sorted(
        (row["iou"] for row in one if row["task"] == "referring"), reverse=True
    )[: len(task["rows"])]


def test_a_row_of_an_evaluation(page, evaluations):
    line = page.get("/v1/evaluation/rows?order=best").json()["rows"][0]
    row = page.get(f"/v1/evaluation/rows/{line['row']}").json()
    picture = page.get(f"/v1/images/{row['image']}").json()
    truth = masks(row["truth"])
    assert truth.shape == (picture["height"], picture["width"])
    stored = pq.read_table(f"{evaluations[0]}/per_sample.parquet").to_pylist()
    (saved,) = [one for one in stored if one["sample_id"] == row["sample_id"]]
    drawn = masks(row["answers"][0]["mask"])
    assert drawn.shape == truth.shape
    if truth.shape[0] == truth.shape[1] == 64:  # no padding, no change of size
        assert drawn.sum() == decode_mask(saved["prediction"], saved["size"]).sum()
    both, either = (drawn & truth).sum(), (drawn | truth).sum()
    assert abs(both / max(either, 1) - row["answers"][0]["iou"]) < 0.12  # measured on the model's square
    assert page.get("/v1/evaluation/rows/99999").status_code == 404


def test_a_map_over_its_raster(page, mapped):
    import cv2
    import rasterio

    told = page.get("/v1/maps/0").json()
    with rasterio.open(mapped / "mask.tif") as file:
        mask, transform = file.read(1), file.transform
    assert (told["mask"]["height"], told["mask"]["width"]) == mask.shape
    assert page.get(f"/v1/images/{told['image']}").json()["width"] == mask.shape[1]
    tile = page.get("/v1/maps/0/tiles/0/1/1")
    drawn = cv2.imdecode(np.frombuffer(tile.content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert ((drawn[..., 3] == 255) == (mask[256:, 256:] == 1)).all()
    assert page.get("/v1/maps/0/tiles/0/9/9").status_code == 404
    assert page.get("/v1/maps/1").status_code == 404
    objects = geopandas.read_file(mapped / "objects.gpkg")
    found = page.get("/v1/maps/0/objects").json()
    assert found["n"] == len(objects) == told["objects"]
    assert [one["area_px"] for one in found["objects"]] == sorted(objects.area_px, reverse=True)[:50]
    first = found["objects"][0]
    x0, y0, x1, y1 = first["window"]
    bounds = objects[objects.id == first["id"]].total_bounds
    assert transform @ (x0, y1) == pytest.approx(bounds[:2]) and transform @ (x1, y0) == pytest.approx(
        bounds[2:]
    )


def test_a_map_of_several_rasters(segmenter, export, tmp_path):
    rasters = [write(tmp_path / f"{name}.tif", scene(90, 110, seed=n)) for n, name in enumerate("ab")]
    request = Request(model=export, inputs=tuple(rasters), out=str(tmp_path / "out"), text="the block")
    told = make_map(request, progress=False)
    with running(ThreadBackend(segmenter, export), Setup(maps=[str(tmp_path / "out")])) as service:
        assert service.get("/v1/about").json()["maps"] == 2
        for number, one in enumerate(told["inputs"]):
            found = service.get(f"/v1/maps/{number}").json()
            assert (found["input"], found["objects"]) == (one["input"], one["objects"])
            assert service.get(f"/v1/maps/{number}/tiles/0/0/0").status_code == 200
            assert service.get(f"/v1/maps/{number}/objects?order=score").json()["n"] == one["objects"]


def test_what_is_not_there_is_said_before_anything_is_served(segmenter, export, tmp_path, store, evaluations):
    backend = ThreadBackend(segmenter, export)
    for setup, said in (
        (Setup(store=str(tmp_path / "none")), "no store"),
        (Setup(evaluations=[str(tmp_path)]), "evaluation.json"),
        (Setup(evaluations=[*evaluations, evaluations[0]]), "two to compare"),
        (Setup(maps=[str(tmp_path)]), "no finished map"),
    ):
        with pytest.raises(UserError, match=said):
            create_app(backend, setup)
    backend.close()


def test_html_in_names_stays_text(segmenter, export, tmp_path, store, evaluations):
    """What a data set calls its categories and asks reaches the page as JSON alone."""
    table = pq.read_table(f"{evaluations[0]}/per_sample.parquet")
    rows = [{**row, "category": HTML} for row in table.to_pylist()]
    folder = tmp_path / "named"
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows, table.schema), folder / "per_sample.parquet")
    result = json.loads(Path(evaluations[0], "evaluation.json").read_text())
    (folder / "evaluation.json").write_text(json.dumps({**result, "model": HTML}))
    with running(ThreadBackend(segmenter, export), Setup(evaluations=[str(folder)])) as service:
        for path in ("/v1/evaluation", "/v1/evaluation/rows"):
            answer = service.get(path)
            assert answer.headers["content-type"] == "application/json" and HTML in json.dumps(
                answer.json()
            ).replace('\\"', '"')
            assert answer.headers["x-content-type-options"] == "nosniff"
        image = service.get("/v1/about").json()["examples"][0]["image"]
        answer = service.post("/v1/segment", {"image": image, "text": HTML})
        assert answer.json()["instruction"] == HTML and answer.headers["content-type"] == "application/json"
        assert requests.get(f"{service.url}/{HTML}", timeout=60).headers["content-type"] == "application/json"
