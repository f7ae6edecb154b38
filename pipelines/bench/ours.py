"""Our stream under the clock: in one worker or two, from a folder or from S3."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from pipelines.bench.loaders import Measured
from pipelines.config import Config
from pipelines.plan.plan import Plan
from pipelines.store.fetch import FetchStats, RangeFetcher
from pipelines.store.index import StoreIndex
from pipelines.stream.stream import Stream

#: ``threads`` is the stream without Ray.
MODES: Final = ("threads", "worker", "actors")
_S3_VARIABLES: Final = ("AWS_ENDPOINT_URL", "UNIGEOSEG_S3_ANONYMOUS", "AWS_REGION")
_AT_ONCE: Final = 128


def ours(
    config: Config, store: str, tokenizer: str, mode: str, rank: int = 0, world: int = 1, ready: float = 0.0
) -> Measured:
    """One worker's whole stream, from its first batch on.

    Args:
        config: of :func:`pipelines.bench.images.bench_config`.
        store: folder or ``s3://`` prefix.
        tokenizer: its folder.
        mode: one of :data:`MODES`.
        rank: of the worker.
        world: number of workers.
        ready: time (``time.time()``) before which the second batch is not asked for.
    """
    with open_mode(config, store, tokenizer, mode, rank, world) as stream:
        first = next(stream)
        time.sleep(max(0.0, ready - time.time()))
        started, images = time.perf_counter(), first.stats.read.images
        samples = sum(len(item.batch) for item in stream)
        seconds = time.perf_counter() - started
        return Measured(stream.stats.read.images - images, samples, seconds)


def ours_of_two(config: Config, store: str, tokenizer: str, mode: str) -> Measured:
    """Two workers, each in a process of its own, as Ray Train has them; the slower one's time counts."""
    import ray

    names = {name: os.environ[name] for name in _S3_VARIABLES if name in os.environ}
    remote = ray.remote(num_cpus=0, runtime_env={"env_vars": names})(ours)
    found = ray.get([remote.remote(config, store, tokenizer, mode, rank, 2) for rank in range(2)])
    return Measured(
        sum(m.images for m in found), sum(m.samples for m in found), max(m.seconds for m in found)
    )


def fetch_only(config: Config, store: str) -> Measured:
    """The bytes alone, in the plan's order: what storage and its client give."""
    index = StoreIndex.open(store, config.data.split)
    plan = Plan.from_config(index, config)
    fetcher, count = RangeFetcher(store), plan.steps * plan.batch_size
    rows = plan.positions(0, count).rows
    fetcher.fetch([_place(e) for e in index.rows(rows[:1])], FetchStats())
    started = time.perf_counter()
    for begin in range(0, count, _AT_ONCE):
        fetcher.fetch([_place(e) for e in index.rows(rows[begin : begin + _AT_ONCE])], FetchStats())
    return Measured(count, count, time.perf_counter() - started)


def open_mode(config: Config, store: str, tokenizer: str, mode: str, rank: int = 0, world: int = 1) -> Stream:
    """Our stream: ``threads`` (no Ray), ``worker`` or ``actors``."""
    from pipelines.stream import open_stream
    from pipelines.stream.plain import open_plain_stream

    if mode == "threads":
        return open_plain_stream(config, store, tokenizer, rank, world)
    data = config.data.model_copy(update={"decode": mode})
    return open_stream(config.model_copy(update={"data": data}), store, tokenizer, rank, world)


@contextmanager
def anonymous_s3(endpoint: str) -> Iterator[None]:
    """The environment of an anonymous reader of ``endpoint``."""
    values = dict(zip(_S3_VARIABLES, (endpoint, "1", "us-east-1"), strict=True))
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _place(entry: dict[str, int | str]) -> tuple[str, int, int]:
    return str(entry["shard"]), int(entry["offset"]), int(entry["nbytes"])
