"""Finished maps to look at."""

from typing import Literal

import cv2
from fastapi import APIRouter, Query, Response
from fastapi.responses import JSONResponse

from pipelines.web.map_view import MapView, UnknownMap
from pipelines.web.schemas import Json

_KEEP = {"cache-control": "private, max-age=3600"}


def map_routes(maps: list[MapView]) -> APIRouter:
    """Routes of maps, which are known by number."""
    router = APIRouter(prefix="/v1/maps")

    def known(number: int) -> MapView:
        if not 0 <= number < len(maps):
            raise UnknownMap(number)
        return maps[number]

    @router.get("/{number}", summary="What was mapped")
    def card(number: int) -> Json:
        return known(number).describe()

    @router.get("/{number}/tiles/{level}/{row}/{column}", summary="A mask's tile", response_class=Response)
    def tile(number: int, level: int, row: int, column: int) -> Response:
        found = known(number).tile(level, row, column)
        if found is None:
            return JSONResponse({"detail": "there is no such tile"}, 404)
        done, data = cv2.imencode(".png", cv2.cvtColor(found, cv2.COLOR_RGBA2BGRA))
        assert done
        return Response(data.tobytes(), media_type="image/png", headers=_KEEP)

    @router.get("/{number}/objects", summary="Objects, a page at a time")
    def objects(
        number: int, order: Literal["area", "score"] = "area", page: int = Query(0, ge=0, le=10**6)
    ) -> Json:
        return known(number).objects(order, page)

    return router
