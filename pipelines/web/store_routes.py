"""A store to look at."""

from fastapi import APIRouter, Query
from starlette.concurrency import run_in_threadpool

from pipelines.web.desk import Desk
from pipelines.web.schemas import Json, SampleRequest
from pipelines.web.store_view import FILTERS, StoreView, UnknownSample

Value = str | None


def store_routes(desk: Desk, store: StoreView) -> APIRouter:
    """Routes of samples and what the model says of them.

    Args:
        desk: that answers.
        store: that is shown.
    """
    router = APIRouter(prefix="/v1/store")

    @router.get("", summary="The store's card and the values of its filters")
    def card() -> Json:
        return {"store": store.index.store, "samples": len(store.index), "facets": store.facets}

    @router.get("/samples", summary="Samples, a page at a time")
    def samples(
        task: Value = None,
        subtask: Value = None,
        category: Value = None,
        source: Value = None,
        split: Value = None,
        page: int = Query(0, ge=0, le=10**7),
    ) -> Json:
        values = (task, subtask, category, source, split)
        chosen = {name: value for name, value in zip(FILTERS, values, strict=True) if value is not None}
        return store.page({name: v for name, v in chosen.items() if name in store.facets}, page)

    @router.get("/samples/{row}", summary="A sample with its truth")
    def sample(row: int) -> Json:
        return store.sample(row)

    @router.post("/samples/{row}/answer", summary="The model's answer, measured against the truth")
    async def answer(row: int, request: SampleRequest) -> Json:
        other = row if request.instruction_of is None else request.instruction_of
        if other != row and other not in store.twins(row):
            raise UnknownSample(other)
        question = await run_in_threadpool(store.question, other)
        image = await run_in_threadpool(desk.images.get, f"store-{row}")
        found = await desk.whole(image, question)
        measured = await run_in_threadpool(store.measured, row, desk.get(found["answer"]).mask)
        return {**found, **measured, "instruction_of": other}

    return router
