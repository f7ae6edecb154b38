"""Runs blocks of images: one after the other in this process, or as Ray Data tasks."""

import os
import pickle
from collections.abc import Iterator
from typing import Any

import cv2

from pipelines.build.config import BuildConfig
from pipelines.build.parts import run_block
from pipelines.build.sources.base import Source, SourceItem

Block = tuple[int, list[SourceItem]]


def run_blocks(
    blocks: list[Block], source: Source, config: BuildConfig, store: str
) -> Iterator[dict[str, Any]]:
    """Reports of the blocks as they finish (their order is free, their content is not)."""
    if config.workers == 0 or not blocks:
        for number, items in blocks:
            yield run_block(number, items, source, config, store)
        return
    yield from _with_ray(blocks, source, config, store)


def _with_ray(
    blocks: list[Block], source: Source, config: BuildConfig, store: str
) -> Iterator[dict[str, Any]]:
    import ray

    started = not ray.is_initialized()
    if started:
        # A driver must not join whatever cluster happens to run on this machine, unless it is told to.
        remote = bool(os.environ.get("RAY_ADDRESS"))
        options: dict[str, Any] = {} if remote else {"address": "local", "num_cpus": config.workers}
        ray.init(include_dashboard=False if not remote else None, log_to_driver=False, **options)
    context = ray.data.DataContext.get_current()
    bars = context.enable_progress_bars
    context.enable_progress_bars = False
    try:
        rows = [{"number": n, "items": pickle.dumps(items)} for n, items in blocks]

        def work(row: dict[str, Any]) -> dict[str, Any]:
            cv2.setNumThreads(1)
            report = run_block(int(row["number"]), pickle.loads(row["items"]), source, config, store)
            return {"report": pickle.dumps(report)}

        data = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            work, compute=ray.data.TaskPoolStrategy(size=config.workers)
        )
        for row in data.iter_rows():
            yield pickle.loads(row["report"])
    finally:
        context.enable_progress_bars = bars
        if started:
            ray.shutdown()
