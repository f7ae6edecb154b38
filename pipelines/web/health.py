"""Whether a service lives, whether it takes instructions, and its numbers."""

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from pipelines.web.backend import Backend
from pipelines.web.metrics import TEXT, Metrics


def health_routes(backend: Backend, metrics: Metrics) -> APIRouter:
    """Routes for clusters and Prometheus.

    Args:
        backend: what answers.
        metrics: that are shown.
    """
    router = APIRouter()

    @router.get("/healthz", summary="Whether the process lives")
    def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @router.get("/readyz", summary="Whether instructions are taken")
    def readyz() -> JSONResponse:
        ready = backend.ready()
        return JSONResponse({"ready": ready, "model": backend.model}, 200 if ready else 503)

    @router.get("/metrics", summary="Numbers for Prometheus", response_class=Response)
    def show_metrics() -> Response:
        text = metrics.text()
        if text is None:
            return JSONResponse({"detail": "prometheus_client is not installed"}, 501)
        return Response(text, media_type=TEXT)

    return router
