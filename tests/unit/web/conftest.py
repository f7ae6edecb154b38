"""A service on loopback around one small untrained model."""

import contextlib
import threading

import pytest
import requests

import unigeoseg
from pipelines.web.app import Setup, create_app
from pipelines.web.backend import ThreadBackend
from pipelines.web.listening import Address, listen
from pipelines.web.metrics import Metrics
from tests.tiny_export import write_export
from tests.tiny_store import write_store

SIZE = 64


class Service:
    """Requests to one address."""

    def __init__(self, url, backend):
        self.url, self.backend = url.rstrip("/").partition("/?")[0], backend
        self.session = requests.Session()

    def get(self, path, **more):
        return self.session.get(self.url + path, timeout=60, **more)

    def post(self, path, body, **more):
        return self.session.post(self.url + path, json=body, timeout=120, **more)

    def put(self, data, name="picture.png", **more):
        headers = {"x-file-name": name, **more.pop("headers", {})}
        return self.session.put(f"{self.url}/v1/images", data=data, headers=headers, timeout=60, **more)


@contextlib.contextmanager
def running(backend, setup, metrics=None):
    """Serves until the block ends; then everything under way is answered and the thread is gone."""
    listening = listen(create_app(backend, setup, metrics), Address("127.0.0.1", 0, setup.token))
    thread = threading.Thread(target=listening.run)
    thread.start()
    try:
        yield Service(listening.url, backend)
    finally:
        listening.server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


@pytest.fixture(scope="session")
def export(tmp_path_factory):
    # a threshold of its own: what is served is cut where predict cuts it
    return str(write_export(tmp_path_factory.mktemp("web") / "export", SIZE, threshold=0.42))


@pytest.fixture(scope="session")
def segmenter(export):
    return unigeoseg.load(export, "cpu")


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    return str(write_store(tmp_path_factory.mktemp("web-store") / "store", 4, 64))


@pytest.fixture(scope="module")
def service(segmenter, export, store):
    metrics = Metrics()
    with running(ThreadBackend(segmenter, export, metrics=metrics), Setup(store=store), metrics) as found:
        yield found
