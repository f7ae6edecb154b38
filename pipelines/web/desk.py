"""From a request to an answer: what the model is given, and the answers that are kept for a while."""

import json
import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
from starlette.concurrency import run_in_threadpool

from pipelines.evaluate.predict import Prediction
from pipelines.maps.grid import Rect
from pipelines.maps.shapes import window_around
from pipelines.web.backend import Ask, Backend
from pipelines.web.images import Image, Images
from pipelines.web.outputs import Answer
from pipelines.web.pyramid import WHOLE
from pipelines.web.schemas import SegmentRequest
from unigeoseg.errors import UserError
from unigeoseg.question import Question

#: Bytes of the masks that are kept.
_KEPT = 256 * 1024 * 1024
#: Sides of a window that is asked for, at least.
_LEAST = 16


class UnknownAnswer(LookupError):
    """There is no answer of this id, or no longer."""


@dataclass(frozen=True)
class Look:
    """What the model is given of a picture.

    Attributes:
        window: in pixels of the picture.
        level: that it is read at.
        part: the window in pixels of the level.
    """

    window: Rect
    level: int
    part: Rect


class Desk:
    """Takes instructions on pictures by id.

    Args:
        images: that may be named.
        backend: that answers.
    """

    def __init__(self, images: Images, backend: Backend) -> None:
        self.images, self.backend = images, backend
        self._answers: OrderedDict[str, Answer] = OrderedDict()
        self._asked: dict[tuple[Any, ...], str] = {}
        self._lock = threading.Lock()

    async def segment(self, request: SegmentRequest) -> dict[str, Any]:
        """An answer as JSON; the same request again is not computed again while its answer is kept.

        Raises:
            UnknownImage: there is no such picture.
            UserError: it cannot be asked so.
            Busy: too much is waiting.
        """
        image = await run_in_threadpool(self.images.get, request.image)
        look = self._look(image, request)
        return await self.ask(
            image, look, self._question(request, look.window), request.threshold or self.backend.threshold
        )

    async def whole(self, image: Image, question: Question) -> dict[str, Any]:
        """An answer about a whole picture, whose question has coordinates in [0, 1]."""
        whole = Rect(0, 0, image.pyramid.height, image.pyramid.width)
        return await self.ask(
            image, Look(whole, *image.pyramid.fitting(whole)), question, self.backend.threshold
        )

    async def ask(self, image: Image, look: Look, question: Question, threshold: float) -> dict[str, Any]:
        """An answer about a part of a picture."""
        asked = (image.id, look, question, threshold)
        with self._lock:
            found = self._asked.get(asked)
            answer = self._answers.get(found) if found else None
            if found and answer:
                self._answers.move_to_end(found)
        if not found or not answer:
            pixels = await run_in_threadpool(image.pyramid.read, look.level, look.part)
            key = f"{image.id}:{look.level}:{look.part}"
            said = await self.backend.answer(Ask(key, pixels, question, threshold))
            answer = _answer(image, look, question, threshold, said)
            found = self._keep(asked, answer)
        told = await run_in_threadpool(answer.describe)
        return {"answer": found, **told, "model": self.backend.model}

    def get(self, name: str) -> Answer:
        """A kept answer.

        Raises:
            UnknownAnswer: there is none of this id, or no longer.
        """
        with self._lock:
            if name not in self._answers:
                raise UnknownAnswer(name)
            return self._answers[name]

    def details(self, name: str) -> bytes:
        """The JSON of a kept answer."""
        told = {"answer": name, **self.get(name).describe(), "model": self.backend.model}
        return (json.dumps(told, ensure_ascii=False, indent=2) + "\n").encode()

    def _keep(self, asked: tuple[Any, ...], answer: Answer) -> str:
        name = f"answer-{secrets.token_urlsafe(12)}"
        with self._lock:
            self._answers[name], self._asked[asked] = answer, name
            while len(self._answers) > 1 and sum(a.mask.nbytes for a in self._answers.values()) > _KEPT:
                gone, _ = self._answers.popitem(last=False)
                self._asked = {key: value for key, value in self._asked.items() if value != gone}
        return name

    def _look(self, image: Image, request: SegmentRequest) -> Look:
        """The window that the model is given.

        Raises:
            UserError: it is none of the picture, or a large picture is asked in words without one.
        """
        pyramid = image.pyramid
        whole = Rect(0, 0, pyramid.height, pyramid.width)
        corners = np.asarray(request.points or (request.box or ()), np.float64).reshape(-1, 2)
        how = request.look
        if how == "auto":
            how = "whole" if whole.height * whole.width <= WHOLE else "around"
        if isinstance(how, tuple):
            x0, y0, x1, y1 = how
            window = Rect(int(y0 // 1), int(x0 // 1), -int(-y1 // 1), -int(-x1 // 1)).cut(whole)
            if min(window.height, window.width) < _LEAST:
                raise UserError(
                    f"look {list(how)} has less than {_LEAST} pixels a side on a picture of {whole.width}x"
                    f"{whole.height}: give x0, y0, x1, y1 in its pixels"
                )
        elif how == "whole":
            window = whole
        elif not len(corners):
            raise UserError(
                f"{image.name} has {whole.width}x{whole.height} pixels: say which part is meant, as look: "
                "x0, y0, x1, y1 (the page takes its view), or look: whole"
            )
        else:
            low, high = np.maximum(corners.min(0), 0), np.minimum(corners.max(0), [whole.width, whole.height])
            window = window_around(low, high, self.backend.image_size, whole)
        level, part = pyramid.fitting(window)
        side = 1 << level
        window = Rect(part.top * side, part.left * side, part.bottom * side, part.right * side).cut(whole)
        return Look(window, level, part)

    def _question(self, request: SegmentRequest, window: Rect) -> Question:
        """With coordinates in [0, 1] of the window.

        Raises:
            UserError: they lie outside, or not exactly one kind is asked.
        """

        def inside(x: float, y: float) -> tuple[float, float]:
            found = (x - window.left) / window.width, (y - window.top) / window.height
            if not all(0 <= v <= 1 for v in found):
                raise UserError(
                    f"({x:g}, {y:g}) lies outside of what the model is given, x {window.left} to "
                    f"{window.right}, y {window.top} to {window.bottom}"
                )
            return found

        box = None
        if request.box is not None:
            x0, y0, x1, y1 = request.box
            box = (*inside(x0, y0), *inside(x1, y1))
        points = [inside(*point) for point in request.points]
        return Question.ask(request.text, box, points, question=request.question)


def _answer(image: Image, look: Look, question: Question, threshold: float, said: Prediction) -> Answer:
    return Answer(
        image.id,
        image.name,
        question,
        look.window,
        look.level,
        said.found.mask,
        said.found.score,
        said.presence,
        threshold,
        image.pyramid.place,
    )
