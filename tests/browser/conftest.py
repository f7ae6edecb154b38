"""A browser and a page on loopback. Without a browser these tests are skipped, and the summary says so."""

import os
import shutil
import warnings
from pathlib import Path

import pytest

from pipelines.maps.make import make_map
from pipelines.maps.request import Request
from pipelines.web.app import Setup
from pipelines.web.backend import ThreadBackend
from tests.geotiffs import scene, write
from tests.unit.web.conftest import export, running, segmenter, store  # noqa: F401
from tests.unit.web.test_views import evaluations  # noqa: F401

ROOT = Path(__file__).parents[2]
#: No sandbox in containers, no GPU, and nothing that calls home.
_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def _missing(what: str, remedy: str) -> None:
    warnings.warn(f"{what} is missing: the page is not tried; {remedy}", stacklevel=1)
    pytest.skip(f"{what} is missing: {remedy}")


@pytest.fixture(scope="session")
def browser():
    """Chromium, headless."""
    sync_api = pytest.importorskip("playwright.sync_api")
    where = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if where is None:
        _missing("chromium", "make test-browser installs Debian's, CHROMIUM names another")
    with sync_api.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=where, args=_FLAGS)
        yield found
        found.close()


@pytest.fixture(scope="session")
def axe() -> str:
    """The source of axe-core."""
    path = ROOT / ".browser/node_modules/axe-core/axe.min.js"
    if not path.is_file():
        _missing("axe-core", "make test-browser fetches it")
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def mapped(tmp_path_factory, export):  # noqa: F811
    folder = tmp_path_factory.mktemp("browser-map")
    raster = write(folder / "city.tif", scene(300, 420, seed=4))
    make_map(Request(model=export, inputs=(raster,), out=str(folder / "out"), text="the block"), False)
    return str(folder / "out")


@pytest.fixture(scope="module")
def site(segmenter, export, store, evaluations, mapped):  # noqa: F811
    """Everything that the page can show."""
    setup = Setup(store=store, evaluations=evaluations, maps=[mapped])
    with running(ThreadBackend(segmenter, export), setup) as found:
        yield found


class Visit:
    """A page that is open, and what it asked for and complained of."""

    def __init__(self, context, site, hash_text=""):
        self.requests, self.errors, self.asked = [], [], []
        self.page = context.new_page()
        self.page.on("request", self._request)
        self.page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(f"{site.url}/{hash_text}")
        self.page.wait_for_selector("body[data-ready]", timeout=60_000)

    def _request(self, request):
        self.requests.append(request.url)
        if request.url.endswith("/v1/segment"):
            self.asked.append(request.post_data_json)

    def answered(self, count):
        """Waits until so many instructions were answered."""
        self.page.wait_for_function("() => !document.querySelector('[aria-busy]')", timeout=60_000)
        for _ in range(200):
            if len(self.asked) >= count:
                break
            self.page.wait_for_timeout(50)
        assert len(self.asked) >= count
        self.page.wait_for_function("() => !document.querySelector('[aria-busy]')", timeout=60_000)


@pytest.fixture
def visit(browser, site):
    """Opens the page; at the end nothing was asked of another host and nothing went wrong."""
    contexts, visits = [], []

    def open_page(hash_text="", **how):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **how})
        contexts.append(context)
        visits.append(Visit(context, site, hash_text))
        return visits[-1]

    yield open_page
    for one in visits:
        assert [url for url in one.requests if not url.startswith((site.url, "blob:"))] == []
        assert one.errors == []
    for context in contexts:
        context.close()
