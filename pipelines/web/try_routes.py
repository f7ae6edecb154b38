"""Instructions in, masks out."""

from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from pipelines.web.desk import Desk
from pipelines.web.examples import Example
from pipelines.web.outputs import KINDS, as_file
from pipelines.web.schemas import Json, SegmentAnswer, SegmentRequest


def try_routes(desk: Desk, examples: list[Example], about: dict[str, Any]) -> APIRouter:
    """Routes of instructions and answers.

    Args:
        desk: that answers.
        examples: that are offered.
        about: what else the page needs to know.
    """
    router = APIRouter(prefix="/v1")

    @router.get("/about", summary="The model and what is served")
    def show_about() -> Json:
        backend = desk.backend
        shown = [example.describe() for example in examples]
        return {
            "model": backend.model,
            "image_size": backend.image_size,
            "none_below": backend.none_below,
            "examples": shown,
            **about,
        }

    @router.post("/segment", summary="A mask for an instruction", response_model=SegmentAnswer)
    async def segment(request: SegmentRequest) -> Json:
        return await desk.segment(request)

    @router.get("/answers/{answer}/{kind}", summary="An answer as a file", response_class=Response)
    async def get_answer(answer: str, kind: str) -> Response:
        if kind not in KINDS:
            return JSONResponse({"detail": f"there are {', '.join(KINDS)}"}, 404)
        found = desk.get(answer)
        data = await run_in_threadpool(as_file, found, kind, desk.backend.model, desk.details(answer))
        headers = {"content-disposition": f'attachment; filename="{kind}"'}
        return Response(data, media_type=KINDS[kind], headers=headers)

    return router
