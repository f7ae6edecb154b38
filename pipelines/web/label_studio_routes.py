"""A machine learning backend for Label Studio: ``/labelstudio`` with health, setup and predict."""

import secrets
import threading
from collections import OrderedDict
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
from fastapi import APIRouter
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from pipelines.web.desk import Desk
from pipelines.web.images import Image, UnknownImage
from pipelines.web.label_studio import LabelConfig, asked, clicked, regions
from unigeoseg.errors import UserError

_SECONDS, _PART = 30, 1 << 20
#: Pictures that are remembered by their address.
_KNOWN = 256


class Predict(BaseModel):
    """What Label Studio sends for tasks, and for a click with a smart tool."""

    tasks: list[dict[str, Any]]
    label_config: str
    project: str | None = None
    params: dict[str, Any] | None = None


class Pictures:
    """Pictures of one Label Studio, fetched by the addresses that its tasks name; of no other server.

    Args:
        desk: whose pictures they become.
        server: address of Label Studio.
        key: of its API; ``None``: none is sent.
        most: bytes of a picture.
    """

    def __init__(self, desk: Desk, server: str, key: str | None, most: int) -> None:
        parts = urlsplit(server)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise UserError(f"--label-studio {server}: give its address, such as http://127.0.0.1:8080")
        self._desk, self._server, self._most = desk, server.rstrip("/") + "/", most
        self._headers = {"authorization": f"Token {key}"} if key else {}
        self._known: OrderedDict[str, str] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, address: str) -> Image:
        """A picture of a task.

        Raises:
            UserError: its address is of another server, or it cannot be had.
        """
        url = urljoin(self._server, address)
        own, asked_for = urlsplit(self._server), urlsplit(url)
        if (asked_for.scheme, asked_for.netloc) != (own.scheme, own.netloc):
            raise UserError(
                f"the task's picture is at {asked_for.scheme}://{asked_for.netloc}, and pictures are fetched "
                f"from {own.scheme}://{own.netloc} alone (--label-studio): import it there, or let Label "
                "Studio serve its storage"
            )
        with self._lock:
            known = self._known.get(url)
            if known is not None:
                try:
                    return self._desk.images.get(known)
                except UnknownImage:
                    del self._known[url]
            image = self._fetch(url)
            self._known[url] = image.id
            while len(self._known) > _KNOWN:
                self._known.popitem(last=False)
            return image

    def _fetch(self, url: str) -> Image:
        path = self._desk.images.folder / secrets.token_hex(16)
        name = urlsplit(url).path.rpartition("/")[2]
        how: dict[str, Any] = {"headers": self._headers, "timeout": _SECONDS, "stream": True}
        try:
            with requests.get(url, allow_redirects=False, **how) as answer, path.open("wb") as file:
                if answer.status_code != 200:
                    raise UserError(
                        f"{url} answers {answer.status_code}: set LABEL_STUDIO_API_KEY to a key of this "
                        "Label Studio, and let it serve its files itself"
                    )
                size = 0
                for part in answer.iter_content(_PART):
                    size += len(part)
                    if size > self._most:
                        raise UserError(f"{name} is larger than {self._most} bytes (--upload-mb)")
                    file.write(part)
        except BaseException as error:
            path.unlink(missing_ok=True)
            if isinstance(error, requests.RequestException):
                raise UserError(f"{url} cannot be fetched ({type(error).__name__})") from error
            raise
        return self._desk.images.add_upload(path, name)


def label_studio_routes(desk: Desk, pictures: Pictures) -> APIRouter:
    """Routes; in Label Studio the model's address is this server's with ``/labelstudio``.

    Args:
        desk: that answers.
        pictures: of the one Label Studio that is served.
    """
    router = APIRouter(prefix="/labelstudio")
    version = {"model_version": desk.backend.model}

    @router.get("/health", summary="Whether the model takes tasks")
    def health() -> dict[str, Any]:
        return {"status": "UP" if desk.backend.ready() else "DOWN", "model_class": "UniGeoSeg"}

    @router.post("/setup", summary="A project was connected")
    def setup(_: dict[str, Any]) -> dict[str, Any]:
        return version

    @router.post("/predict", summary="Masks for tasks, or for a click with a smart tool")
    async def predict(request: Predict) -> dict[str, Any]:
        config = LabelConfig.parse(request.label_config)
        context = (request.params or {}).get("context") or {}
        marked = clicked(context) if context else None
        if context and marked is None:
            return {"results": [], **version}
        found = []
        for task in request.tasks:
            image = await run_in_threadpool(pictures.get, _address(config, task))
            results, scores = [], []
            for question, label in [marked] if marked else asked(config):
                told = await desk.whole(image, question)
                mask = desk.get(told["answer"]).mask
                results += regions(mask, told["score"], config.tag_of(label), label)
                scores.append(told["score"])
            score = sum(scores) / len(scores) if scores else 0.0
            found.append({"result": results, "score": score, **version})
        return {"results": found, **version}

    return router


def _address(config: LabelConfig, task: dict[str, Any]) -> str:
    field = config.images[config.tags[0].image]
    address = (task.get("data") or {}).get(field)
    if not isinstance(address, str):
        raise UserError(
            f"task {task.get('id')} has no {field!r}, where the labelling configuration expects it"
        )
    return address
