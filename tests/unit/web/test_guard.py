"""What the service refuses: real requests that try."""

import contextlib
import socket
import time

import numpy as np
import pytest
import rasterio
import requests

from pipelines.web import listening
from pipelines.web.app import Setup
from pipelines.web.backend import ThreadBackend
from pipelines.web.guard import Limits
from pipelines.web.listening import Address
from tests.unit.web.conftest import running
from tests.unit.web.test_service import RGB, png
from unigeoseg.errors import UserError

TOKEN = "a-long-secret-token"
LIMITS = Limits(upload=200_000, first=1.0, rate=1_000_000)


@pytest.fixture(scope="module")
def small(segmenter, export, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uploads")
    with running(ThreadBackend(segmenter, export), Setup(limits=LIMITS, folder=str(folder))) as found:
        found.folder = folder
        yield found
    assert not list(folder.iterdir())


@pytest.fixture(scope="module")
def locked(segmenter, export):
    with running(ThreadBackend(segmenter, export), Setup(token=TOKEN)) as found:
        yield found


def raw(service, text, wait=10.0):
    """What the server answers to these bytes, until it closes or ``wait`` seconds are over."""
    host, _, port = service.url.partition("://")[2].partition(":")
    with socket.create_connection((host, int(port)), timeout=wait) as link:
        link.sendall(text)
        found = b""
        try:
            while part := link.recv(65536):
                found += part
        except TimeoutError:
            pass
        return found


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/..%2fapp.py",
        "/static/%2e%2e/app.py",
        "/static//etc/passwd",
        "/v1/images/..%2f..%2fetc%2fpasswd",
        "/v1/images/%2fetc%2fpasswd",
        "/v1/images/file:%2f%2f%2fetc%2fpasswd",
        "/v1/images/store--1",
        "/v1/images/picture-99",
        "/v1/images/upload-0000/tiles/0/0/0",
        "/v1/answers/..%2f..%2fx/mask.png",
        "/v1/images/scene-0/tiles/-1/0/0",
        "/v1/images/scene-0/tiles/0/9999999/0",
    ],
)
def test_no_request_becomes_a_path(small, path):
    answer = raw(small, f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
    status = int(answer.split()[1])
    assert status in (404, 422) and b"root:" not in answer and b"def " not in answer


@pytest.mark.parametrize(
    "image", ["../../etc/passwd", "/etc/passwd", "http://127.0.0.1/x", "s3://b/x", "picture-1\n"]
)
def test_no_body_becomes_a_path(small, image):
    assert small.post("/v1/segment", {"image": image, "text": "a"}).status_code == 422


def test_files_that_name_other_files_or_servers_are_refused(small):
    with socket.create_server(("127.0.0.1", 0)) as watched:
        watched.settimeout(0.5)
        port = watched.getsockname()[1]
        source = f"<SourceFilename>/vsicurl/http://127.0.0.1:{port}/a.tif</SourceFilename>"
        band = (
            f'<VRTRasterBand dataType="Byte" band="1"><SimpleSource>{source}</SimpleSource></VRTRasterBand>'
        )
        vrt = f'<VRTDataset rasterXSize="64" rasterYSize="64">{band}</VRTDataset>'
        wms = f'<GDAL_WMS><Service name="TMS"><ServerUrl>http://127.0.0.1:{port}/</ServerUrl></Service></GDAL_WMS>'
        for name, text in {
            "a.vrt": vrt,
            "a.tif": vrt,
            "b.xml": wms,
            "c.tif": f"/vsicurl/http://127.0.0.1:{port}/a.tif",
            "d.tif": "II*\0" + vrt,
            "e.json": f'{{"type": "FeatureCollection", "href": "http://127.0.0.1:{port}/"}}',
            "f.svg": f'<svg xmlns="http://www.w3.org/2000/svg"><image href="http://127.0.0.1:{port}/"/></svg>',
        }.items():
            answer = small.put(text.encode(), name)
            assert answer.status_code == 422, (name, answer.text)
            assert "/tmp" not in answer.text
        with pytest.raises(TimeoutError):
            watched.accept()
    assert not uploads(small)


def uploads(service):
    """Files of uploads that are there."""
    return [path for path in service.folder.rglob("*") if path.is_file()]


def test_too_much_is_refused_while_it_comes(small):
    declared = small.put(b"x" * 300_000)
    assert declared.status_code == 413

    def parts():
        for _ in range(40):
            yield b"x" * 10_000

    with contextlib.suppress(requests.exceptions.ConnectionError):  # it may close before all is sent
        assert small.put(parts()).status_code == 413  # chunked: its size is not told beforehand
    assert small.post("/v1/segment", {"image": "scene-0", "text": "a" * 1_400_000}).status_code == 413
    assert not uploads(small)
    noise = np.random.default_rng(0).integers(0, 255, (400, 400, 3), dtype=np.uint8)
    assert small.put(png(noise)).status_code == 413
    known = small.put(png(RGB))
    assert known.status_code == 200 and len(uploads(small)) == 1
    requests.delete(f"{small.url}/v1/images/{known.json()['image']}", timeout=60)
    assert not uploads(small)


def test_slow_bodies_and_slow_headers_end(small, monkeypatch):
    for head in (
        b"PUT /v1/images HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\nabc",
        b"POST /v1/segment HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        b"Content-Length: 1000\r\n\r\n{",
    ):
        began = time.monotonic()
        answer = raw(small, head)
        assert b" 408 " in answer.split(b"\r\n")[0] + b" " and time.monotonic() - began < 9, answer
    assert not uploads(small)
    with contextlib.suppress(OSError):  # and one that ends in the middle of its body
        raw(small, b"PUT /v1/images HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\nabc", 0.1)
    time.sleep(0.5)
    assert not uploads(small)
    monkeypatch.setattr(listening, "_HEADERS", 1.0)
    began = time.monotonic()
    assert raw(small, b"GET / HTTP/1.1\r\nHost: 127.") == b""
    assert time.monotonic() - began < 9


def test_other_names_and_other_sites_are_refused(small):
    for headers, status in (
        ({"host": "evil.example"}, 403),
        ({"host": "127.0.0.1.evil.example"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"host": "localhost:8000"}, 200),
        ({}, 200),
    ):
        assert small.get("/v1/about", headers=headers).status_code == status, headers
    answer = small.get("/v1/about", headers={"origin": small.url})
    assert answer.status_code == 200
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]
    form = requests.post(
        f"{small.url}/v1/segment",
        data="image=scene-0&text=a",
        timeout=60,
        headers={"content-type": "text/plain"},
    )
    assert form.status_code == 415
    asked = requests.options(f"{small.url}/v1/segment", timeout=60, headers={"origin": small.url})
    assert not [name for name in asked.headers if name.lower().startswith("access-control")]


def test_pages_may_load_nothing_from_elsewhere(small):
    answer = small.get("/")
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'" and policy["script-src"] == "'self'"
    assert policy["connect-src"] == "'self'" and policy["frame-ancestors"] == "'none'"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "<script>" not in answer.text and "style=" not in answer.text and "http" not in answer.text


def test_a_token_is_needed_and_remembered(locked):
    for path in ("/", "/v1/about", "/metrics", "/openapi.json", "/static/main.js"):
        assert requests.get(locked.url + path, timeout=60).status_code == 401
    assert requests.get(f"{locked.url}/healthz", timeout=60).status_code == 200
    assert requests.get(f"{locked.url}/?token=wrong", timeout=60).status_code == 401
    bearer = {"authorization": f"Bearer {TOKEN}"}
    assert requests.get(f"{locked.url}/v1/about", timeout=60, headers=bearer).status_code == 200
    basic = requests.get(f"{locked.url}/v1/about", timeout=60, auth=("anyone", TOKEN))
    assert basic.status_code == 200
    assert requests.get(f"{locked.url}/v1/about", timeout=60, auth=(TOKEN, "x")).status_code == 401
    wrong = {"authorization": f"Bearer {TOKEN}x"}
    assert requests.get(f"{locked.url}/v1/about", timeout=60, headers=wrong).status_code == 401
    with requests.Session() as browser:
        answer = browser.get(f"{locked.url}/?token={TOKEN}", timeout=60)
        assert answer.status_code == 200 and "token" not in answer.url
        assert browser.get(f"{locked.url}/v1/about", timeout=60).status_code == 200
        (cookie,) = answer.history[0].headers["set-cookie"].split("\n")
        assert "HttpOnly" in cookie and "samesite=strict" in cookie.lower()
        foreign = browser.get(f"{locked.url}/v1/about", timeout=60, headers={"origin": "http://evil.example"})
        assert foreign.status_code == 403


def test_other_hosts_need_a_token():
    assert Address.choose("127.0.0.1", 0, None).token is None
    for host in ("0.0.0.0", "::", "192.168.1.5"):
        with pytest.raises(UserError, match="token"):
            Address.choose(host, 0, None)
        assert len(Address.choose(host, 0, "auto").token) >= 30
    with pytest.raises(UserError, match="16"):
        Address.choose("0.0.0.0", 0, "short")
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UserError, match="port"):
        listening.listen(None, Address("127.0.0.1", taken.getsockname()[1], None))


def test_a_picture_that_claims_too_much_is_refused(small, tmp_path):
    path = tmp_path / "bomb.tif"
    options = {"driver": "GTiff", "height": 100_000, "width": 100_000, "count": 3, "dtype": "uint8"}
    with rasterio.open(
        path,
        "w",
        **options,
        tiled=True,
        sparse_ok=True,
        compress="deflate",
        bigtiff="yes",
        blockxsize=8192,
        blockysize=8192,
    ):
        pass
    answer = small.put(path.read_bytes(), "bomb.tif")
    assert answer.status_code == 422 and "claims" in answer.text
