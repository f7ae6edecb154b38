"""What answers: a model in a thread, with a bounded queue and what it saw of pictures kept."""

import asyncio
import math
import threading
import time
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipelines.evaluate.predict import Prediction, answer_of, none_rule
from pipelines.web.metrics import Metrics
from unigeoseg.model import Seen
from unigeoseg.question import Question
from unigeoseg.segmenter import Segmenter, check_shape

#: Weight of the last answer in the mean time of one.
LATEST = 0.2


class Busy(RuntimeError):
    """More is waiting than the queue takes.

    Attributes:
        retry_after: seconds after which it is worth asking again.
    """

    def __init__(self, retry_after: int) -> None:
        self.retry_after = retry_after
        super().__init__(f"too much is waiting; ask again in {retry_after} s")

    def __reduce__(self) -> tuple[Any, ...]:
        """Exceptions cross process borders by their arguments."""
        return type(self), (self.retry_after,)


@dataclass(frozen=True)
class Ask:
    """One instruction on one picture.

    Attributes:
        key: names the pixels: the same key means the same pixels.
        pixels: uint8 RGB ``[H, W, 3]``.
        question: with coordinates in [0, 1] of them.
        threshold: probability in (0, 1) above which a pixel is foreground.
    """

    key: str
    pixels: NDArray[np.uint8]
    question: Question
    threshold: float


class Backend(Protocol):
    """What a service needs of a model, wherever it runs."""

    model: str
    image_size: int
    threshold: float
    none_below: float | None

    async def answer(self, ask: Ask) -> Prediction:
        """Segments.

        Raises:
            Busy: too much is waiting, or it is about to stop.
            UserError: the instruction or the picture cannot be used.
        """
        ...

    def ready(self) -> bool:
        """Whether it takes instructions."""
        ...

    def close(self) -> None:
        """Answers what is waiting, takes nothing new, and ends."""
        ...


class ThreadBackend:
    """A model in one thread.

    Instructions that wait for the same picture are answered together: it is looked at once, and what was seen
    of the latest pictures is kept for the next click. Each instruction is computed by itself, so that no
    answer depends on what else is asked: it has the bytes that ``predict`` gives.

    Args:
        segmenter: the model.
        model: its reference, as it was given.
        most_waiting: instructions in the queue; more are refused.
        cache_bytes: of what was seen of pictures.
        metrics: that are counted.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        model: str,
        most_waiting: int = 32,
        cache_bytes: int = 1 << 30,
        metrics: Metrics | None = None,
    ) -> None:
        self.model, self.image_size, self.threshold = model, segmenter.image_size, segmenter.threshold
        self._segmenter, self._most, self._cache_bytes = segmenter, most_waiting, cache_bytes
        self._rule = none_rule(segmenter.source, True)
        self.none_below = self._rule.threshold if self._rule else None
        self._metrics = metrics or Metrics()
        self._waiting: list[tuple[Ask, Future[Prediction]]] = []
        self._seen: OrderedDict[str, Seen] = OrderedDict()
        self._change = threading.Condition()
        self._seconds, self._busy, self._closing = 0.5, False, False
        self._thread = threading.Thread(target=self._work, name="segment", daemon=True)
        self._thread.start()

    async def answer(self, ask: Ask) -> Prediction:
        """See :class:`Backend`."""
        patch = self._segmenter.model.config.vision.patch
        check_shape(ask.pixels, self.image_size, patch, "the part that is looked at")
        self._segmenter.check(ask.pixels, ask.question)
        future: Future[Prediction] = Future()
        with self._change:
            if self._closing or len(self._waiting) >= self._most:
                self._metrics.refused()
                raise Busy(self._retry_after())
            self._waiting.append((ask, future))
            self._metrics.waiting(len(self._waiting))
            self._change.notify()
        return await asyncio.wrap_future(future)

    def knows(self, key: str) -> bool:
        """Whether what was seen of a picture is kept."""
        return key in self._seen

    def ready(self) -> bool:
        """See :class:`Backend`."""
        return self._thread.is_alive() and not self._closing

    def close(self) -> None:
        """See :class:`Backend`."""
        with self._change:
            self._closing = True
            self._change.notify()
        self._thread.join()

    def _retry_after(self) -> int:
        return max(1, min(60, math.ceil(self._seconds * (len(self._waiting) + self._busy))))

    def _work(self) -> None:
        while True:
            with self._change:
                self._busy = False
                while not self._waiting and not self._closing:
                    self._change.wait()
                if not self._waiting:
                    return
                key = self._waiting[0][0].key
                here = [one for one in self._waiting if one[0].key == key]
                self._waiting = [one for one in self._waiting if one[0].key != key]
                self._busy = True
                self._metrics.waiting(len(self._waiting))
            for ask, future in here:
                if not future.set_running_or_notify_cancel():
                    continue
                started = time.perf_counter()
                try:
                    future.set_result(self._answer(ask))
                except BaseException as error:  # it belongs to whoever asked
                    future.set_exception(error)
                took = time.perf_counter() - started
                self._seconds += LATEST * (took - self._seconds)
                self._metrics.answered(took)

    def _answer(self, ask: Ask) -> Prediction:
        seen = self._look(ask)
        (square,) = self._segmenter.squares([ask.pixels], [ask.question], seen)
        height, width = ask.pixels.shape[:2]
        return answer_of(square, height, width, ask.question, ask.threshold, self._rule)

    def _look(self, ask: Ask) -> Seen:
        seen = self._seen.get(ask.key)
        self._metrics.looked(kept=seen is not None)
        if seen is None:
            seen = self._segmenter.look(ask.pixels)
        self._seen[ask.key] = seen
        self._seen.move_to_end(ask.key)
        while self._seen and sum(one.nbytes for one in self._seen.values()) > self._cache_bytes:
            self._seen.popitem(last=False)
        return seen
