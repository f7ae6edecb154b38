"""Labelling tools: requests as their documentation records them, masks that decode to what predict says."""

import http.server
import threading
from types import SimpleNamespace
from typing import ClassVar

import cv2
import numpy as np
import pytest
import requests
from cvat_sdk import masks as cvat_masks
from PIL import Image

from pipelines.web import cvat
from pipelines.web.app import Setup
from pipelines.web.backend import ThreadBackend
from pipelines.web.label_studio import LabelConfig, brush
from tests.geotiffs import scene
from tests.unit.web.conftest import running
from tests.unit.web.test_service import png
from unigeoseg.errors import UserError

RGB = np.moveaxis(scene(80, 120), 0, -1)
KEY = "secret-key"
CONFIG = """<View>
  <Image name="image" value="$image" zoom="true"/>
  <BrushLabels name="brush" toName="image">
    <Label value="Block" background="#FFA39E"/><Label value="Road" hint="the road"/>
  </BrushLabels>
  <KeyPointLabels name="point" toName="image" smart="true"><Label value="Block"/></KeyPointLabels>
  <RectangleLabels name="box" toName="image" smart="true"><Label value="Block"/></RectangleLabels>
</View>"""
POLYGONS = CONFIG.replace("BrushLabels", "PolygonLabels").replace('name="brush"', 'name="outline"')


def unpack(rle):
    """The brush format read bit by bit, as its description says."""
    bits = "".join(f"{byte:08b}" for byte in rle)
    at = 0

    def read(count):
        nonlocal at
        at += count
        return int(bits[at - count : at], 2)

    count, word = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    values = []
    while len(values) < count:
        run = read(1)
        length = read(sizes[read(2)]) + 1
        values += [read(word)] * length if run else [read(word) for _ in range(length)]
    assert len(values) == count and len(bits) - at < 8
    return np.asarray(values, np.uint8)


@pytest.mark.parametrize("shape", [(7, 5), (300, 250), (1, 1)])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_brushes_decode_to_the_mask(shape, share):
    mask = np.random.default_rng(1).random(shape) < share
    if shape[0] > 100:
        mask = cv2.blur(mask.astype(np.float32), (31, 31)) > 0.3
    found = unpack(brush(mask)).reshape(*shape, 4)
    assert (found == mask[..., None] * 255).all()


class Studio(http.server.BaseHTTPRequestHandler):
    """Serves one picture to those who know the key, and a way to another place."""

    asked: ClassVar[list[str]] = []

    def do_GET(self):
        self.asked.append(self.path)
        if self.path == "/data/moved.png":
            self.send_response(302)
            self.send_header("location", "http://127.0.0.1:9/secret.png")
            self.end_headers()
            return
        known = self.headers.get("authorization") == f"Token {KEY}"
        self.send_response(200 if known else 401)
        self.end_headers()
        if known:
            self.wfile.write(png(RGB) if self.path.endswith("x.png") else b"<html></html>")

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def studio():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Studio)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def connected(segmenter, export, studio):
    setup = Setup(label_studio=studio, label_studio_key=KEY, token="a-long-secret-token")
    with running(ThreadBackend(segmenter, export), setup) as found:
        found.session.auth = ("label-studio", "a-long-secret-token")
        yield found


def task(address="/data/upload/1/x.png"):
    return {"id": 7, "data": {"image": address}, "annotations": [], "predictions": [], "project": 1}


def predict(service, context=None, config=CONFIG, address="/data/upload/1/x.png"):
    body = {
        "tasks": [task(address)],
        "project": "1.1700000000",
        "label_config": config,
        "params": {"login": None, "password": None, "context": context},
    }
    return service.post("/labelstudio/predict", body)


def drawn(results):
    """The masks of results, by label."""
    return {
        one["value"]["brushlabels"][0]: unpack(one["value"]["rle"]).reshape(80, 120, 4)[..., 3] > 0
        for one in results
    }


def test_health_and_setup(connected, export):
    assert connected.get("/labelstudio/health").json() == {"status": "UP", "model_class": "UniGeoSeg"}
    body = {
        "project": "1.1700000000",
        "schema": CONFIG,
        "hostname": "http://127.0.0.1:8080",
        "access_token": "never kept",
        "extra_params": "",
    }
    assert connected.post("/labelstudio/setup", body).json() == {"model_version": export}
    assert requests.get(f"{connected.url}/labelstudio/health", timeout=60).status_code == 401


def test_every_label_of_a_task(connected, segmenter, export):
    found = predict(connected).json()
    assert found["model_version"] == export and len(found["results"]) == 1
    results = found["results"][0]["result"]
    wanted = {
        "Block": segmenter.segment(RGB, text="the block"),
        "Road": segmenter.segment(RGB, text="the road"),
    }
    wanted = {label: one for label, one in wanted.items() if one.mask.any()}
    assert {label: mask.sum() for label, mask in drawn(results).items()} == {
        label: one.mask.sum() for label, one in wanted.items()
    }
    for one in results:
        assert (one["from_name"], one["to_name"], one["type"]) == ("brush", "image", "brushlabels")
        assert (one["original_width"], one["original_height"], one["image_rotation"]) == (120, 80, 0)
        assert (
            drawn([one])[one["value"]["brushlabels"][0]] == wanted[one["value"]["brushlabels"][0]].mask
        ).all()


def keypoint(x, y, positive=1):
    value = {"x": x, "y": y, "width": 0.5, "keypointlabels": ["Block"]}
    return {
        "original_width": 120,
        "original_height": 80,
        "image_rotation": 0,
        "value": value,
        "is_positive": positive,
        "id": "a",
        "from_name": "point",
        "to_name": "image",
        "type": "keypointlabels",
        "origin": "manual",
    }


def test_a_click_and_a_box_of_a_smart_tool(connected, segmenter):
    found = predict(connected, {"result": [keypoint(20, 30), keypoint(90, 90, 0)]}).json()
    own = segmenter.segment(RGB, points=[(0.2, 0.3)])
    assert own.mask.any()
    assert (drawn(found["results"][0]["result"])["Block"] == own.mask).all()
    value = {"x": 10, "y": 20, "width": 40, "height": 40, "rotation": 0, "rectanglelabels": ["Block"]}
    box = {**keypoint(0, 0), "value": value, "type": "rectanglelabels", "from_name": "box"}
    found = predict(connected, {"result": [box]}).json()
    own = segmenter.segment(RGB, box=(0.1, 0.2, 0.5, 0.6))
    assert (drawn(found["results"][0]["result"])["Block"] == own.mask).all()
    assert predict(connected, {"result": [keypoint(20, 30, 0)]}).json()["results"] == []


def test_polygons_are_the_masks_outlines(connected, segmenter):
    found = predict(connected, {"result": [keypoint(20, 30)]}, POLYGONS).json()
    results = found["results"][0]["result"]
    assert {one["type"] for one in results} == {"polygonlabels"} and results[0]["from_name"] == "outline"
    canvas = np.zeros((80, 120), np.uint8)
    for one in results:  # corners lie between pixels: filled at eight times the size
        ring = np.asarray(one["value"]["points"]) * [1.2, 0.8]
        large = np.zeros((640, 960), np.uint8)
        cv2.fillPoly(large, [np.rint(ring * 8).astype(np.int32)], 1)
        canvas |= (large.reshape(80, 8, 120, 8).mean((1, 3)) > 0.5).astype(np.uint8)
    own = segmenter.segment(RGB, points=[(0.2, 0.3)]).mask
    assert (canvas >= own).all()  # holes are filled


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://127.0.0.1:9/x.png", "alone"),
        ("file:///etc/passwd", "alone"),
        ("//evil.example/x.png", "alone"),
        ("http://127.0.0.1@evil.example/x.png", "alone"),
        ("/data/moved.png", "answers 302"),
        ("/data/page.html", "known kind"),
        (None, "no 'image'"),
    ],
)
def test_pictures_of_other_servers_are_not_fetched(connected, studio, address, said):
    answer = predict(connected, address=address)
    assert answer.status_code == 422 and said in answer.text, answer.text
    assert "/etc/passwd" not in Studio.asked


def test_a_damaged_configuration_is_said(connected):
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaa">]><View>&a;</View>'
    for config in ("<View>", bomb, "<View><Choices name='a' toName='b'/></View>"):
        assert predict(connected, config=config).status_code == 422
    with pytest.raises(UserError, match="BrushLabels"):
        LabelConfig.parse('<View><Image name="i" value="$i"/></View>')


def test_cvat_calls_the_function(export, segmenter):
    function = cvat.create(model=export, labels="Block=the block;Road", device="cpu")
    spec = function.spec
    assert [(one.name, one.id) for one in spec.labels] == [("Block", 0), ("Road", 1)]
    image = Image.fromarray(RGB)
    context = SimpleNamespace(frame_name="x.png", conf_threshold=None, conv_mask_to_poly=False)
    shapes = function.detect(context, image)
    wanted = [segmenter.segment(RGB, text=text) for text in ("the block", "the road")]
    wanted = [(number, one) for number, one in enumerate(wanted) if one.mask.any()]
    assert [one.label_id for one in shapes] == [number for number, _ in wanted] and wanted
    for shape, (_, own) in zip(shapes, wanted, strict=True):
        assert shape.type.value == "mask" and shape.frame == 0
        mask = cvat_masks.decode_mask(shape.points, image_width=120, image_height=80)
        assert (mask == own.mask).all()
    best = max(own.score for _, own in wanted)
    context.conf_threshold = best + 1e-6
    assert function.detect(context, image) == []
    context.conf_threshold, context.conv_mask_to_poly = None, True
    polygons = function.detect(context, image)
    assert {one.type.value for one in polygons} == {"polygon"}
    assert all(len(one.points) >= 6 for one in polygons)
    with pytest.raises(UserError, match="labels"):
        cvat.create(model=export, labels=" ")
