"""Pictures in, masks out."""

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from pipelines.web.desk import Desk
from pipelines.web.examples import Example
from pipelines.web.outputs import KINDS, as_file, jpeg
from pipelines.web.schemas import ImageAnswer, ImageId, Json, SegmentAnswer, SegmentRequest
from pipelines.web.uploads import receive_image

#: Tiles never change while their picture is known.
_KEEP = {"cache-control": "private, max-age=3600"}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


def try_routes(desk: Desk, examples: list[Example], about: dict[str, Any]) -> APIRouter:
    """Routes of pictures, instructions and answers.

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

    @router.put(
        "/images", summary="A picture: the body is the file", response_model=ImageAnswer, openapi_extra=_BODY
    )
    async def put_image(request: Request) -> Json:
        image = await receive_image(request, desk.images)
        return image.describe()

    @router.get("/images/{image}", summary="Size and place of a picture", response_model=ImageAnswer)
    def get_image(image: ImageId) -> Json:
        return desk.images.get(image).describe()

    @router.delete("/images/{image}", summary="Delete an upload", status_code=204)
    def delete_image(image: ImageId) -> Response:
        desk.images.remove(image)
        return Response(status_code=204)

    @router.get("/images/{image}/tiles/{level}/{row}/{column}", summary="A tile", response_class=Response)
    def get_tile(image: ImageId, level: int, row: int, column: int) -> Response:
        tile = desk.images.get(image).pyramid.tile(level, row, column)
        if tile is None:
            return JSONResponse({"detail": "there is no such tile"}, 404)
        return Response(jpeg(tile), media_type="image/jpeg", headers=_KEEP)

    @router.get("/images/{image}/thumbnail", summary="The whole picture, small", response_class=Response)
    def get_thumbnail(image: ImageId) -> Response:
        pyramid = desk.images.get(image).pyramid
        tile = pyramid.tile(pyramid.depth - 1, 0, 0)
        assert tile is not None
        return Response(jpeg(tile), media_type="image/jpeg", headers=_KEEP)

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
