"""The service: pictures in, the masks of ``predict`` out, by requests over loopback."""

import io
import json
import shutil
import threading
import time
from pathlib import Path

import cv2
import geopandas
import numpy as np
import pytest
import rasterio
import requests
from PIL import Image

import unigeoseg
from pipelines.evaluate.predict import predict_file
from pipelines.evaluate.presence import NoneRule, write_rule
from pipelines.evaluate.records import decode_mask
from pipelines.web import desk, pyramid
from pipelines.web.app import Setup
from pipelines.web.backend import ThreadBackend
from tests.geotiffs import AT, scene, write
from tests.unit.web.conftest import running
from unigeoseg.question import Question
from unigeoseg.segmenter import Segmenter

RGB = np.moveaxis(scene(80, 120), 0, -1)


def png(pixels):
    held = io.BytesIO()
    Image.fromarray(pixels).save(held, "png")
    return held.getvalue()


@pytest.mark.parametrize(
    ("asked", "question"),
    [
        ({"text": "the block"}, {"text": "the block"}),
        ({"question": "Where would people be?"}, {"question": "Where would people be?"}),
        ({"box": [12, 16, 60, 48]}, {"box": (0.1, 0.2, 0.5, 0.6)}),
        ({"points": [[24, 24], [60, 40]]}, {"points": [(0.2, 0.3), (0.5, 0.5)]}),
    ],
    ids=["text", "question", "box", "points"],
)
def test_the_bytes_of_predict(service, export, tmp_path, asked, question):
    (tmp_path / "x.png").write_bytes(png(RGB))
    known = service.put(png(RGB)).json()
    assert (known["width"], known["height"], known["crs"]) == (120, 80, None)
    told = predict_file(export, tmp_path / "x.png", Question.ask(**question), tmp_path / "out")
    for _ in range(2):  # looked at for the first time, and from what is kept
        found = service.post("/v1/segment", {"image": known["image"], **asked}).json()
        assert found["mask"] == told["mask"] and found["score"] == told["score"]
        assert found["window"] == [0, 0, 120, 80] and found["area_m2"] is None
    mask = decode_mask(found["mask"]["counts"], found["mask"]["size"])
    assert found["area_px"] == mask.sum() and found["share"] == pytest.approx(mask.mean())
    other = service.post("/v1/segment", {"image": known["image"], **asked, "threshold": 0.3}).json()
    assert other["area_px"] >= found["area_px"]


def test_an_answer_as_files_with_its_place(service, tmp_path):
    path = write(tmp_path / "city.tif", scene(80, 120))
    known = service.put(Path(path).read_bytes(), "city.tif").json()
    assert known["crs"] == "EPSG:32633"
    found = service.post("/v1/segment", {"image": known["image"], "points": [[60, 40]]}).json()
    mask = decode_mask(found["mask"]["counts"], found["mask"]["size"])
    assert mask.any()
    assert found["area_m2"] == pytest.approx(0.25 * mask.sum(), rel=2e-3)  # UTM's scale at its middle
    files = {
        name: service.get(f"/v1/answers/{found['answer']}/{name}")
        for name in ("mask.png", "mask.json", "mask.tif", "objects.gpkg")
    }
    assert all(file.status_code == 200 for file in files.values())
    drawn = cv2.imdecode(np.frombuffer(files["mask.png"].content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert ((drawn > 0) == mask).all() and set(np.unique(drawn)) <= {0, 255}
    assert json.loads(files["mask.json"].content)["mask"] == found["mask"]
    with rasterio.MemoryFile(files["mask.tif"].content) as held, held.open() as file:
        assert (file.read(1) == mask).all() and file.transform == AT and file.crs.to_epsg() == 32633
    (tmp_path / "objects.gpkg").write_bytes(files["objects.gpkg"].content)
    objects = geopandas.read_file(tmp_path / "objects.gpkg")
    assert objects.crs.to_epsg() == 32633
    assert objects.area.sum() == pytest.approx(0.25 * mask.sum())
    assert objects.area_m2.sum() == pytest.approx(found["area_m2"], abs=0.1)
    assert service.get(f"/v1/answers/{found['answer']}/../../etc/passwd").status_code == 404


def test_a_window_is_what_predict_says_of_that_part(service, export, tmp_path):
    pixels = np.moveaxis(scene(200, 300, seed=3), 0, -1)
    known = service.put(png(pixels)).json()
    (tmp_path / "part.png").write_bytes(png(pixels[60:160, 100:250]))
    told = predict_file(export, tmp_path / "part.png", Question.ask("the block"), tmp_path / "out")
    body = {"image": known["image"], "text": "the block", "look": [100, 60, 250, 160]}
    found = service.post("/v1/segment", body).json()
    assert found["mask"] == told["mask"] and found["window"] == [100, 60, 250, 160]
    near = {"image": known["image"], "points": [[150.5, 90.5]], "look": "around"}
    found = service.post("/v1/segment", near).json()
    x0, y0, x1, y1 = found["window"]
    assert (x1 - x0, y1 - y0) == (64, 64) and x0 <= 150 < x1 and y0 <= 90 < y1
    (tmp_path / "near.png").write_bytes(png(pixels[y0:y1, x0:x1]))
    asked = Question.ask(points=[((150.5 - x0) / 64, (90.5 - y0) / 64)])
    assert found["mask"] == predict_file(export, tmp_path / "near.png", asked, tmp_path / "out")["mask"]


def test_a_phrase_may_be_answered_with_nothing(export, tmp_path):
    shutil.copytree(export, tmp_path / "export")
    write_rule(str(tmp_path / "export"), NoneRule("peak", 0.9999))
    model = unigeoseg.load(tmp_path / "export", "cpu")
    (tmp_path / "x.png").write_bytes(png(RGB))
    asked = Question.ask("the block")
    told = predict_file(model, tmp_path / "x.png", asked, tmp_path / "out")
    with running(ThreadBackend(model, "export"), Setup()) as service:
        known = service.put(png(RGB)).json()["image"]
        found = service.post("/v1/segment", {"image": known, "text": "the block"}).json()
        assert found["none"] and found["score"] == 0 and found["presence"] == told["presence"]
        assert service.get("/v1/about").json()["none_below"] == 0.9999
        point = service.post("/v1/segment", {"image": known, "points": [[60, 40]]}).json()
        assert point["presence"] is None and not point["none"]


def test_of_a_large_raster_a_part_is_looked_at(service, monkeypatch):
    monkeypatch.setattr(desk, "WHOLE", 1000)
    known = service.put(png(np.moveaxis(scene(200, 300, seed=5), 0, -1))).json()["image"]
    words = service.post("/v1/segment", {"image": known, "text": "the block"})
    assert words.status_code == 422 and "which part" in words.json()["detail"]
    whole = service.post("/v1/segment", {"image": known, "text": "the block", "look": "whole"}).json()
    assert whole["window"] == [0, 0, 300, 200]
    point = service.post("/v1/segment", {"image": known, "points": [[299.5, 0.5]]}).json()
    assert point["window"] == [236, 0, 300, 64]  # moved inside
    box = service.post("/v1/segment", {"image": known, "box": [100, 50, 200, 110]}).json()
    assert box["window"] == [75, 5, 225, 155]  # half as long again as the box
    monkeypatch.setattr(pyramid, "WHOLE", 1000)  # and with more pixels at half the size
    body = {"image": known, "text": "the block", "look": [101, 51, 201, 111]}
    half = service.post("/v1/segment", body).json()
    assert half["window"] == [100, 48, 204, 112] and half["mask"]["size"] == [16, 26]
    assert half["area_px"] == 16 * decode_mask(half["mask"]["counts"], half["mask"]["size"]).sum()


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"text": "a", "question": "b"}, 422, "give one of"),
        ({}, 422, "give one of"),
        ({"text": "  "}, 422, "empty"),
        ({"points": [[121, 5]]}, 422, "lies outside"),
        ({"points": [[1, 1]] * 4}, 422, "at most 3"),
        ({"box": [50, 50, 10, 10]}, 422, ""),
        ({"text": "a", "look": [500, 500, 600, 600]}, 422, "less than"),
        ({"text": "a", "threshold": 1.5}, 422, "less than 1"),
        ({"text": "a", "path": "/etc/passwd"}, 422, "Extra inputs"),
        ({"text": "a " * 1500}, 422, "longest sequence"),
    ],
)
def test_wrong_requests_say_what_is_wrong(service, body, status, said):
    known = service.put(png(RGB)).json()
    found = service.post("/v1/segment", {"image": known["image"], **body})
    assert found.status_code == status and said in found.text, found.text
    assert service.get("/readyz").status_code == 200


def test_uploads_are_deleted(service):
    known = service.put(png(RGB), "C:\\secret\\<b>x</b>.png").json()
    assert known["name"] == "b>.png"  # what stands behind the last folder
    assert service.get(f"/v1/images/{known['image']}").json() == known
    assert requests.delete(f"{service.url}/v1/images/{known['image']}", timeout=60).status_code == 204
    assert service.get(f"/v1/images/{known['image']}").status_code == 404
    first = service.get("/v1/about").json()["examples"][0]["image"]
    assert requests.delete(f"{service.url}/v1/images/{first}", timeout=60).status_code == 404
    assert service.get(f"/v1/images/{first}").status_code == 200


def test_health_numbers_and_description(service):
    assert service.get("/healthz").json() == {"status": "ok"}
    assert service.get("/readyz").json()["ready"] is True
    numbers = service.get("/metrics").text
    assert 'unigeoseg_requests_total{path="/v1/segment",status="200"}' in numbers
    assert 'unigeoseg_looks_total{kept="yes"}' in numbers and "unigeoseg_answer_seconds_bucket" in numbers
    described = service.get("/openapi.json").json()
    assert {"/v1/segment", "/v1/images", "/healthz", "/readyz", "/metrics"} <= set(described["paths"])
    assert "questions" not in described["components"]["schemas"]["SegmentRequest"]["properties"]


class Slow(Segmenter):
    """Waits until it is let go."""

    def __init__(self, inner):
        super().__init__(inner.model, inner.tokenizer, inner.source)
        self.go, self.begun, self.looks = threading.Event(), threading.Event(), 0

    def look(self, image):
        self.looks += 1
        return super().look(image)

    def squares(self, images, questions, seen=None):
        self.begun.set()
        assert self.go.wait(60)
        return super().squares(images, questions, seen)


def test_overload_is_refused_and_all_that_was_taken_is_answered(segmenter, export):
    slow = Slow(segmenter)
    found = {}
    with running(ThreadBackend(slow, export, most_waiting=3), Setup()) as service:
        example = service.get("/v1/about").json()["examples"][1]["image"]
        slow.begun.wait(60)  # the first example is being prepared

        def ask(number):
            body = {"image": example, "text": f"the block {number}"}
            found[number] = requests.post(f"{service.url}/v1/segment", json=body, timeout=60)

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        limit = time.monotonic() + 30
        while len(found) < 5 and time.monotonic() < limit:
            time.sleep(0.05)
        refused = [one for one in found.values() if one.status_code == 503]
        assert len(refused) == 5
        assert all(1 <= int(one.headers["retry-after"]) <= 60 for one in refused)
        assert service.get("/healthz").status_code == 200  # what waits holds up nothing else
        before = slow.looks
        threading.Timer(0.5, slow.go.set).start()
    for thread in threads:  # the server has ended by now
        thread.join(60)
    assert sorted(one.status_code for one in found.values()) == [200] * 3 + [503] * 5
    assert slow.looks == before + 1  # three instructions, one look


def test_fifty_mixed_requests_give_the_same_bytes_in_any_order(service):
    pictures = [service.put(png(np.roll(RGB, n * 7, axis=1))).json()["image"] for n in range(3)]
    bodies = []
    for n in range(50):
        kind = [{"text": f"the block {n}"}, {"points": [[n + 5, 40]]}, {"box": [n, 5, n + 30, 60]}][n % 3]
        bodies.append({"image": pictures[n % 3], **kind})
    found = {}

    def ask(numbers):
        for number in numbers:
            while True:
                answer = requests.post(f"{service.url}/v1/segment", json=bodies[number], timeout=60)
                if answer.status_code != 503:
                    break
                time.sleep(0.2)
            found[number] = answer.json()

    threads = [threading.Thread(target=ask, args=(range(n, 50, 5),)) for n in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(found) == 50
    for number in (0, 1, 2, 31, 49):
        image = service.put(png(np.roll(RGB, number % 3 * 7, axis=1))).json()["image"]
        again = service.post("/v1/segment", {**bodies[number], "image": image}).json()
        assert again["mask"] == found[number]["mask"] and again["score"] == found[number]["score"]
