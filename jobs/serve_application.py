"""The service as an application of Ray Serve: ``import_path: jobs.serve_application:build`` in a RayService.

Everything that a caller may name by id (pictures, answers) is in the one front, the model in its replicas.
"""

import os
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from pipelines.web.app import Setup, create_app
from pipelines.web.engine import Engine
from pipelines.web.guard import Limits
from pipelines.web.metrics import Metrics
from pipelines.web.replicas import Scale, ServeBackend, model_deployment, ray_serve
from unigeoseg.errors import UserError


class Args(BaseModel):
    """What stands under ``args`` of the application; more than the model only where it is to differ."""

    model_config = ConfigDict(extra="forbid")
    model: str
    images: list[str] = []
    fewest: int = Field(1, ge=1)
    most: int = Field(1, ge=1)
    cpus: float = Field(1, gt=0)
    gpus: float = Field(0, ge=0)
    queue: int = Field(32, ge=1)
    cache_gb: float = Field(1, ge=0)
    upload_mb: int = Field(512, ge=1)
    page: bool = True


class _Front:
    """The application of ``unigeoseg serve`` before replicas of the model."""

    async def __init__(self, engine: Engine, setup: Setup, handle: Any) -> None:
        self._setup, self._metrics = replace(setup, token=_token()), Metrics()
        self._backend = ServeBackend(handle, await handle.facts.remote(), engine, self._metrics)

    def __serve_build_asgi_app__(self) -> Any:
        """Which Serve asks for once this is made."""
        return create_app(self._backend, self._setup, self._metrics)


def _token() -> str:
    """From the environment of the process that asks, so that it travels in no argument."""
    token = os.environ.get("UNIGEOSEG_TOKEN")
    if not token:
        raise UserError(
            "UNIGEOSEG_TOKEN is not set: a service in a cluster is reached by others, and needs one"
        )
    return token


def build(args: Args) -> Any:
    """The application; its token is in ``UNIGEOSEG_TOKEN``, as for ``unigeoseg serve``.

    Raises:
        UserError: there is no token, or Ray Serve is not installed.
    """
    _token()
    serve = ray_serve()
    engine = Engine(args.model, None, args.queue, round(args.cache_gb * 2**30))
    setup = Setup(pictures=args.images, limits=Limits(upload=args.upload_mb * 2**20), page=args.page)
    model = model_deployment(engine, Scale(args.fewest, max(args.fewest, args.most), args.cpus, args.gpus))
    front = serve.deployment(name="Front", num_replicas=1, max_ongoing_requests=256)(serve.ingress()(_Front))
    return front.bind(engine, setup, model)
