"""A model in replicas of Ray Serve: the bytes of one process, whatever ends on the way."""

import io
import re
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pytest
import ray
import requests
import torch
from PIL import Image

import unigeoseg
from pipelines.web import replicas
from pipelines.web.app import Setup
from pipelines.web.backend import ThreadBackend
from pipelines.web.engine import Engine
from pipelines.web.metrics import Metrics
from tests.geotiffs import scene
from tests.tiny_export import write_export
from tests.unit.web.conftest import running

serve = pytest.importorskip("ray.serve")
pytestmark = pytest.mark.integration
RGB = np.moveaxis(scene(80, 120), 0, -1)
TWO = replicas.Scale(2, 2, cpus=0.5)


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    return str(write_export(tmp_path_factory.mktemp("replicas") / "export", 64, threshold=0.42))


@pytest.fixture(scope="module")
def cluster():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the replicas
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    serve.shutdown()
    ray.shutdown()
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def service(cluster, export):
    engine, metrics = Engine(export, "cpu"), Metrics()
    with (
        replicas.replicas(engine, TWO, metrics) as backend,
        running(backend, Setup(page=False), metrics) as found,
    ):
        yield found


def png(number):
    held = io.BytesIO()
    Image.fromarray(np.roll(RGB, 7 * number, axis=1)).save(held, "png")
    return held.getvalue()


def body_of(number, pictures):
    kind = [
        {"text": f"the block {number}"},
        {"points": [[number + 5, 40]]},
        {"box": [number, 5, number + 30, 60]},
    ]
    return {"image": pictures[number % len(pictures)], **kind[number % 3]}


def asked_of(service, bodies, workers=5):
    """All answers, whose order is the bodies'; refused ones are asked again."""

    def ask(body):
        while True:
            answer = requests.post(f"{service.url}/v1/segment", json=body, timeout=120)
            if answer.status_code != 503:
                return answer
            time.sleep(0.2)

    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(ask, bodies))


def processes_of_replicas():
    found = [
        process for process in psutil.Process().children(recursive=True) if "Replica:" in _title(process)
    ]
    return [process for process in found if f":{replicas.MODEL}" in _title(process)]


def _title(process):
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def test_fifty_mixed_requests_have_the_bytes_of_one_process(service, export):
    pictures = [service.put(png(n)).json()["image"] for n in range(3)]
    found = asked_of(service, [body_of(n, pictures) for n in range(50)])
    assert {one.status_code for one in found} == {200}
    told = {n: answer.json() for n, answer in enumerate(found)}
    with running(ThreadBackend(unigeoseg.load(export, "cpu"), export), Setup(page=False)) as alone:
        again = [alone.put(png(n)).json()["image"] for n in range(3)]
        for number, answer in enumerate(asked_of(alone, [body_of(n, again) for n in range(50)])):
            same = answer.json()
            for name in ("mask", "score", "window", "threshold"):
                assert same[name] == told[number][name]
    assert told[0]["threshold"] == 0.42 and any(one["area_px"] for one in told.values())
    about = service.get("/v1/about").json()
    assert (about["image_size"], about["model"]) == (64, export)
    (count,) = re.findall(r"unigeoseg_answer_seconds_count (\S+)", service.get("/metrics").text)
    assert float(count) >= 50


def test_a_picture_comes_to_the_replica_that_has_seen_it(service):
    def looks(kept):
        found = re.search(rf'unigeoseg_looks_total{{kept="{kept}"}} (\S+)', service.get("/metrics").text)
        return float(found[1]) if found else 0

    picture = service.put(png(20)).json()["image"]
    before = {kept: looks(kept) for kept in ("yes", "no")}
    for number in range(8):
        assert service.post("/v1/segment", {"image": picture, "points": [[number + 1, 3]]}).status_code == 200
        time.sleep(0.3)  # the router hears of it
    assert looks("no") - before["no"] <= 2 and looks("yes") - before["yes"] >= 6


def test_a_replica_that_is_killed_loses_nothing(service):
    before = processes_of_replicas()
    assert len(before) == 2
    pictures = [service.put(png(30 + n)).json()["image"] for n in range(4)]
    threading.Timer(0.4, before[0].send_signal, (signal.SIGKILL,)).start()
    found = asked_of(service, [body_of(n, pictures) for n in range(60)], workers=8)
    assert [one.status_code for one in found] == [200] * 60
    assert not before[0].is_running() or before[0].status() == psutil.STATUS_ZOMBIE
    limit = time.monotonic() + 90
    while len(processes_of_replicas()) < 2 and time.monotonic() < limit:
        time.sleep(0.5)
    assert len(processes_of_replicas()) == 2  # another one came


def test_more_than_may_wait_is_refused_and_what_waits_is_answered(cluster, service, export):
    engine, one = Engine(export, "cpu", most_waiting=1), replicas.Scale(1, 1, cpus=0.5)
    before = set(serve.status().applications)
    with replicas.replicas(engine, one, Metrics()) as backend, running(backend, Setup(page=False)) as narrow:
        picture = narrow.put(png(50)).json()["image"]
        bodies = [{"image": picture, "points": [[n + 1, n + 1]]} for n in range(40)]
        with ThreadPoolExecutor(40) as pool:
            found = list(pool.map(lambda body: narrow.post("/v1/segment", body), bodies))
    refused = [one for one in found if one.status_code == 503]
    assert {one.status_code for one in found} == {200, 503}
    assert all(1 <= int(one.headers["retry-after"]) <= 60 for one in refused)
    assert set(serve.status().applications) == before  # its own is gone, the other one is not


def test_what_is_under_way_is_answered_before_the_end(service):
    backend, found = service.backend, []
    with running(backend, Setup(page=False)) as other:
        picture = other.put(png(60)).json()["image"]
        bodies = [{"image": picture, "box": [n, 5, n + 30, 60]} for n in range(6)]
        threads = [
            threading.Thread(target=lambda body=body: found.append(other.post("/v1/segment", body)))
            for body in bodies
        ]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
    for thread in threads:
        thread.join(60)
    assert [one.status_code for one in found] == [200] * 6
    backend._closing = False  # the other tests' service goes on


def test_what_a_caller_can_mend_is_told_without_a_traceback(service):
    picture = service.put(png(1)).json()["image"]
    long = service.post("/v1/segment", {"image": picture, "text": "word " * 700})
    assert long.status_code == 422 and "Traceback" not in long.text and "token" in long.json()["detail"]
