"""Evaluations to look at."""

from typing import Literal

from fastapi import APIRouter, Query

from pipelines.web.evaluation_view import FILTERS, EvaluationView
from pipelines.web.schemas import Json

Value = str | None


def evaluation_routes(view: EvaluationView) -> APIRouter:
    """Routes of one evaluation, or of two side by side."""
    router = APIRouter(prefix="/v1/evaluation")

    @router.get("", summary="Results and the values of the filters")
    def card() -> Json:
        return view.describe()

    @router.get("/rows", summary="Samples, a page at a time")
    def rows(
        task: Value = None,
        category: Value = None,
        size: Value = None,
        order: Literal["worst", "best", "gain", "loss"] = "worst",
        page: int = Query(0, ge=0, le=10**7),
    ) -> Json:
        values = zip(FILTERS, (task, category, size), strict=True)
        return view.page({name: value for name, value in values if value is not None}, order, page)

    @router.get("/rows/{row}", summary="A sample with its truth and what each model marked")
    def one(row: int) -> Json:
        return view.row(row)

    return router
