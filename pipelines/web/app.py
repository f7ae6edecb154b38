"""The application: the page, and the service under ``/v1``."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from pipelines.web.backend import Backend, Busy
from pipelines.web.desk import Desk, UnknownAnswer
from pipelines.web.evaluation_routes import evaluation_routes
from pipelines.web.evaluation_view import EvaluationView, UnknownRow
from pipelines.web.examples import Example, find_examples
from pipelines.web.guard import Guard, Limits
from pipelines.web.health import health_routes
from pipelines.web.image_routes import image_routes
from pipelines.web.images import Images, UnknownImage
from pipelines.web.label_studio_routes import Pictures, label_studio_routes
from pipelines.web.map_routes import map_routes
from pipelines.web.map_view import UnknownMap, open_maps
from pipelines.web.metrics import Metrics
from pipelines.web.page import INDEX, page_files, respond
from pipelines.web.schemas import SegmentRequest
from pipelines.web.store_routes import store_routes
from pipelines.web.store_view import StoreView, UnknownSample
from pipelines.web.try_routes import try_routes
from unigeoseg.errors import UserError

logger = logging.getLogger(__name__)
#: Seconds between looks for uploads that nobody uses any more.
_SWEEP = 60.0


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What an application serves beside the model.

    Attributes:
        pictures: paths or URLs, from the command line alone.
        store: that may be looked at.
        evaluations: folders of one, or of two to compare.
        maps: folders of finished maps.
        label_studio: address of the one Label Studio whose tasks are answered.
        label_studio_key: of its API.
        token: that callers must know.
        limits: of requests.
        uploads: bytes of all uploads together.
        folder: for uploads; ``None``: the one for temporary files.
        page: whether there is a page, or the service alone.
    """

    pictures: list[str] = field(default_factory=list)
    store: str | None = None
    evaluations: list[str] = field(default_factory=list)
    maps: list[str] = field(default_factory=list)
    label_studio: str | None = None
    label_studio_key: str | None = None
    token: str | None = None
    limits: Limits = field(default_factory=Limits)
    uploads: int = 2 * 1024**3
    folder: str | None = None
    page: bool = True


def create_app(backend: Backend, setup: Setup = Setup(), metrics: Metrics | None = None) -> Any:
    """An ASGI application.

    Args:
        backend: what answers.
        setup: what is served beside it.
        metrics: that the backend counts, too.

    Raises:
        UserError: something that is to be served is not there.
    """
    counted = metrics or Metrics()
    images = Images(setup.uploads, setup.folder)
    store = StoreView(setup.store) if setup.store else None
    if store is not None:
        images.add_family("store", store.opener)
    evaluation = EvaluationView(setup.evaluations) if setup.evaluations else None
    if evaluation is not None:
        images.add_family("evaluation", evaluation.opener)
    maps = open_maps(setup.maps, images)
    examples = find_examples(images, setup.pictures, store)
    desk = Desk(images, backend)
    app = FastAPI(
        title="UniGeoSeg",
        version=version("unigeoseg"),
        description="Segmentation of aerial imagery by instruction. Coordinates are pixels of the picture.",
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan(desk, examples),
    )
    about: dict[str, Any] = {"store": setup.store, "upload": setup.limits.upload}
    about |= {"evaluations": len(setup.evaluations), "maps": len(maps)}
    app.include_router(health_routes(backend, counted))
    app.include_router(image_routes(images))
    app.include_router(try_routes(desk, examples, about))
    if store is not None:
        app.include_router(store_routes(desk, store))
    if evaluation is not None:
        app.include_router(evaluation_routes(evaluation))
    if maps:
        app.include_router(map_routes(maps))
    if setup.label_studio:
        key, most = setup.label_studio_key, setup.limits.upload
        app.include_router(label_studio_routes(desk, Pictures(desk, setup.label_studio, key, most)))
    if setup.page:
        _add_page(app)
    _add_errors(app)
    return _Counted(Guard(app, setup.token, setup.limits), app, counted)


def _lifespan(desk: Desk, examples: list[Example]) -> Callable[[FastAPI], Any]:
    """Prepares the first example, sweeps uploads, and at the end answers what waits and deletes uploads."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(_first_answer(desk, examples)), asyncio.create_task(_sweep(desk.images))]
        yield
        for task in tasks:
            task.cancel()
        await run_in_threadpool(desk.backend.close)
        await run_in_threadpool(desk.images.close)

    return lifespan


async def _first_answer(desk: Desk, examples: list[Example]) -> None:
    """What is seen first is segmented before anybody asks."""
    if not examples or not examples[0].asks:
        return
    asked = {key: value for key, value in examples[0].asks[0].items() if key != "label"}
    try:
        await desk.segment(SegmentRequest(image=examples[0].image, **asked))
    except (UserError, Busy) as error:
        logger.warning("the example was not segmented: %s", error)


async def _sweep(images: Images) -> None:
    while True:
        await asyncio.sleep(_SWEEP)
        await run_in_threadpool(images.sweep)


def _add_page(app: FastAPI) -> None:
    found = page_files()

    @app.get("/", include_in_schema=False)
    def index() -> Any:
        return respond(found[INDEX])

    @app.get("/static/{name}", include_in_schema=False)
    def static(name: str) -> Any:
        return respond(found[name]) if name in found else JSONResponse({"detail": "no such file"}, 404)

    @app.get("/favicon.ico", include_in_schema=False)
    def icon() -> Any:
        return respond(found["icon.svg"])


def _add_errors(app: FastAPI) -> None:
    """What callers can mend is told; the rest is logged and told as 500 without details."""

    def told(status: int, text: str, headers: dict[str, str] | None = None) -> JSONResponse:
        return JSONResponse({"detail": text}, status, headers)

    @app.exception_handler(UserError)
    async def _wrong(_: Request, error: Exception) -> JSONResponse:
        return told(422, str(error))

    @app.exception_handler(ClientDisconnect)
    async def _gone(_: Request, error: Exception) -> JSONResponse:
        return told(400, "the connection ended before the body did")

    @app.exception_handler(Busy)
    async def _busy(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, Busy)
        return told(503, str(error), {"retry-after": str(error.retry_after)})

    for kind, text in (
        (UnknownImage, "there is no such picture, or no longer: open it again"),
        (UnknownAnswer, "this answer is no longer kept: ask again"),
        (UnknownSample, "the store has no such sample"),
        (UnknownRow, "the evaluation has no such sample"),
        (UnknownMap, "there is no such map"),
    ):

        @app.exception_handler(kind)
        async def _unknown(_: Request, error: Exception, text: str = text) -> JSONResponse:
            return told(404, text)


class _Counted:
    """Counts requests by route and status.

    Args:
        inner: application.
        app: whose routes are named.
        metrics: that are counted.
    """

    def __init__(self, inner: Any, app: FastAPI, metrics: Metrics) -> None:
        self._inner, self._app, self._metrics = inner, app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = scope.get("route")
                self._metrics.request(getattr(route, "path", "other"), message["status"])
            await send(message)

        await self._inner(scope, receive, counted)

    def openapi(self) -> dict[str, Any]:
        """The description of the service."""
        return self._app.openapi()
