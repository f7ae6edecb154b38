"""Pictures in, and what is seen of them by tiles."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from pipelines.web.images import Images
from pipelines.web.outputs import jpeg
from pipelines.web.schemas import ImageAnswer, ImageId, Json
from pipelines.web.uploads import receive_image

#: Tiles never change while their picture is known.
_KEEP = {"cache-control": "private, max-age=3600"}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


def image_routes(images: Images) -> APIRouter:
    """Routes of pictures, which are known by id."""
    router = APIRouter(prefix="/v1")

    @router.put(
        "/images", summary="A picture: the body is the file", response_model=ImageAnswer, openapi_extra=_BODY
    )
    async def put_image(request: Request) -> Json:
        image = await receive_image(request, images)
        return image.describe()

    @router.get("/images/{image}", summary="Size and place of a picture", response_model=ImageAnswer)
    def get_image(image: ImageId) -> Json:
        return images.get(image).describe()

    @router.delete("/images/{image}", summary="Delete an upload", status_code=204)
    def delete_image(image: ImageId) -> Response:
        images.remove(image)
        return Response(status_code=204)

    @router.get("/images/{image}/tiles/{level}/{row}/{column}", summary="A tile", response_class=Response)
    def get_tile(image: ImageId, level: int, row: int, column: int) -> Response:
        tile = images.get(image).pyramid.tile(level, row, column)
        if tile is None:
            return JSONResponse({"detail": "there is no such tile"}, 404)
        return Response(jpeg(tile), media_type="image/jpeg", headers=_KEEP)

    @router.get("/images/{image}/thumbnail", summary="The whole picture, small", response_class=Response)
    def get_thumbnail(image: ImageId) -> Response:
        pyramid = images.get(image).pyramid
        tile = pyramid.tile(pyramid.depth - 1, 0, 0)
        assert tile is not None
        return Response(jpeg(tile), media_type="image/jpeg", headers=_KEEP)

    return router
