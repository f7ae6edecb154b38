"""What answers: a model in replicas of Ray Serve, whose number follows what is asked.

A replica holds a :class:`ThreadBackend`, so that what waits in it for the same picture is answered together
and every answer has the bytes of ``predict``. A picture comes again to the replica that has seen it, where
that has room.
"""

import asyncio
import math
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.evaluate.models import find_export
from pipelines.evaluate.predict import Prediction
from pipelines.web.backend import LATEST, Ask, Busy, ThreadBackend
from pipelines.web.engine import Engine
from pipelines.web.metrics import Metrics
from unigeoseg.errors import UserError
from unigeoseg.question import Question
from unigeoseg.segmenter import load

#: Name of the model's deployment in Ray Serve.
MODEL = "Model"
#: Requests that a replica has at once; more wait for any replica, so that a new one finds work.
_ONGOING = 4
#: How often an instruction is given to another replica because the one that had it ended.
_TRIES = 5
#: Pictures of which Serve remembers that a replica has seen them.
_REMEMBERED = 64
#: Bytes of the latest pictures that stay in the object store for further instructions.
_HELD = 1 << 29
#: Seconds in which a first replica must be up.
_START = 600.0


@dataclass(frozen=True)
class Scale:
    """How many replicas there are, and what each occupies.

    Attributes:
        fewest: replicas.
        most: between them their number follows the requests under way.
        cpus: of a replica; its threads.
        gpus: of a replica.
    """

    fewest: int = 1
    most: int = 1
    cpus: float = 1
    gpus: float = 0


def model_deployment(engine: Engine, scale: Scale) -> Any:
    """The model as a bound deployment of Ray Serve.

    Raises:
        UserError: Ray Serve is not installed.
    """
    serve = ray_serve()

    class Replica(_Replica):
        """Whose router knows which pictures it has seen."""

        @serve.multiplexed(max_num_models_per_replica=_REMEMBERED)
        async def met(self, key: str) -> str:
            return key

        async def answer(
            self, key: str, pixels: NDArray[np.uint8], question: Question, threshold: float
        ) -> tuple[Prediction, bool]:
            await self.met(key)
            return await super().answer(key, pixels, question, threshold)

    count: dict[str, Any] = {"num_replicas": scale.fewest}
    if scale.most > scale.fewest:
        limits = {"min_replicas": scale.fewest, "max_replicas": scale.most}
        count = {"autoscaling_config": {**limits, "target_ongoing_requests": _ONGOING / 2}}
    return serve.deployment(
        name=MODEL,
        max_ongoing_requests=_ONGOING,
        max_queued_requests=engine.most_waiting,
        health_check_period_s=2,
        ray_actor_options={"num_cpus": scale.cpus, "num_gpus": scale.gpus},
        **count,
    )(Replica).bind(engine, max(1, int(scale.cpus)))


@contextmanager
def replicas(engine: Engine, scale: Scale, metrics: Metrics) -> Iterator["ServeBackend"]:
    """Replicas on the connected cluster for as long as the block lasts; no port of Serve's is open.

    Raises:
        UserError: Ray Serve is not installed, the model is not there, or the cluster has no room.
    """
    serve = ray_serve()
    find_export(engine.model)  # what is not there is told before anything starts
    name = f"unigeoseg-{secrets.token_hex(4)}"  # others may serve on the same cluster
    serve.start(proxy_location="Disabled")
    try:
        try:
            handle = serve.run(model_deployment(engine, scale), name=name, route_prefix=None)
            # Serve refuses to wait where an event loop runs, as in a notebook.
            with ThreadPoolExecutor(1) as pool:
                facts = pool.submit(lambda: handle.facts.remote().result(timeout_s=_START)).result()
        except RuntimeError as error:
            raise UserError(f"the replicas did not start: {' '.join(str(error).split())[:600]}") from error
        yield ServeBackend(handle, facts, engine, metrics)
    finally:
        serve.delete(name)
        if not serve.status().applications:
            serve.shutdown()


def ray_serve() -> Any:
    """The module ``ray.serve``.

    Raises:
        UserError: it is not installed.
    """
    try:
        from ray import serve
    except ImportError as error:
        raise UserError(
            f"--replicas needs Ray Serve, of which {error.name} is not installed: in the checkout, pip "
            "install '.[serve]'"
        ) from error
    return serve


class _Replica:
    """The class behind Serve's replicas."""

    def __init__(self, engine: Engine, threads: int) -> None:
        torch.set_num_threads(threads)
        segmenter = load(engine.model, engine.device)
        most = engine.most_waiting + _ONGOING  # Serve's router is what refuses
        self._backend = ThreadBackend(segmenter, engine.model, most, engine.cache_bytes)

    async def facts(self) -> dict[str, Any]:
        """What a backend tells of its model."""
        return {name: getattr(self._backend, name) for name in ("image_size", "threshold", "none_below")}

    async def answer(
        self, key: str, pixels: NDArray[np.uint8], question: Question, threshold: float
    ) -> tuple[Prediction, bool]:
        """See :class:`ThreadBackend`; and whether the picture had been seen here."""
        kept = self._backend.knows(key)
        return await self._backend.answer(Ask(key, np.asarray(pixels), question, threshold)), kept

    def check_health(self) -> None:
        """Serve starts another replica where this raises."""
        if not self._backend.ready():
            raise RuntimeError("the thread of the model ended")


class ServeBackend:
    """See :class:`pipelines.web.backend.Backend`.

    An instruction whose replica ended is given to another one: an answer changes nothing, so that it may be
    computed twice.

    Args:
        handle: of the deployment :data:`MODEL`.
        facts: what its replicas tell of their model (``handle.facts``).
        engine: that they run.
        metrics: that are counted.
    """

    def __init__(
        self, handle: Any, facts: dict[str, Any], engine: Engine, metrics: Metrics | None = None
    ) -> None:
        self._handle, self._metrics = handle, metrics or Metrics()
        self._own = secrets.token_hex(4)  # two fronts may know different pictures by one id
        self.model = engine.model
        self.image_size: int = facts["image_size"]
        self.threshold: float = facts["threshold"]
        self.none_below: float | None = facts["none_below"]
        self._held: OrderedDict[str, tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()
        self._under_way, self._seconds, self._closing = 0, 0.5, False

    async def answer(self, ask: Ask) -> Prediction:
        """See :class:`pipelines.web.backend.Backend`."""
        from ray.exceptions import RayActorError, RayTaskError
        from ray.serve.exceptions import BackPressureError

        if self._closing:
            raise self._busy()
        self._under_way += 1
        self._metrics.waiting(self._under_way)
        started = time.perf_counter()
        try:
            pixels = await asyncio.to_thread(self._put, ask)
            key = f"{self._own}:{ask.key}"
            handle = self._handle.options(multiplexed_model_id=key)
            for attempt in range(_TRIES):
                try:
                    found: Prediction
                    found, kept = await handle.answer.remote(key, pixels, ask.question, ask.threshold)
                    break
                except RayActorError:
                    if attempt + 1 == _TRIES:
                        raise
            took = time.perf_counter() - started
            self._seconds += LATEST * (took - self._seconds)
            self._metrics.answered(took)
            self._metrics.looked(kept)
            return found
        except BackPressureError as error:
            raise self._busy() from error
        except RayTaskError as error:  # its text has the traceback of another process
            if isinstance(error.cause, UserError):
                raise error.cause from error
            raise
        finally:
            self._under_way -= 1
            self._metrics.waiting(self._under_way)

    def ready(self) -> bool:
        """See :class:`pipelines.web.backend.Backend`."""
        return not self._closing

    def close(self) -> None:
        """See :class:`pipelines.web.backend.Backend`; what is under way is answered before a server ends."""
        self._closing = True
        self._held.clear()

    def _busy(self) -> Busy:
        self._metrics.refused()
        return Busy(max(1, min(60, math.ceil(self._seconds * max(1, self._under_way) / _ONGOING))))

    def _put(self, ask: Ask) -> Any:
        """The pixels in the object store, once for all instructions on them."""
        import ray

        with self._lock:
            held = self._held.pop(ask.key, None) or (ray.put(ask.pixels), ask.pixels.nbytes)
            self._held[ask.key] = held
            while len(self._held) > 1 and sum(size for _, size in self._held.values()) > _HELD:
                self._held.popitem(last=False)
        return held[0]
