"""Our stream under the clock: in one worker or two, from a folder or from S3."""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pipelines.bench.loaders import Clock, Measured
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
    config: Config,
    store: str,
    tokenizer: str,
    mode: str,
    rank: int = 0,
    world: int = 1,
    meeting: Path | None = None,
) -> Measured:
    """The middle of one worker's stream, from the arrival of one block to that of another.

    Args:
        config: of :func:`pipelines.bench.images.bench_config`.
        store: folder or ``s3://`` prefix.
        tokenizer: its folder.
        mode: one of :data:`MODES`.
        rank: of the worker.
        world: number of workers.
        meeting: folder in which the workers wait for one another after their first batch.
    """
    clock, read = Clock(), 0
    with open_mode(config, store, tokenizer, mode, rank, world) as stream:
        for item in stream:
            if item.stats.read.images != read:  # comes with the first batch of a block
                clock.mark()
            if not read and meeting is not None:
                _meet(meeting, rank, world)
            read = item.stats.read.images
            clock.images += len(item.batch)
    return clock.measured()


def _meet(folder: Path, rank: int, world: int) -> None:
    """Waits until all workers are here."""
    (folder / str(rank)).touch()
    while len(list(folder.iterdir())) < world:
        time.sleep(0.002)


def ours_in_workers(config: Config, store: str, tokenizer: str, mode: str, world: int) -> Measured:
    """``world`` workers, each in a process of its own, as Ray Train has them; the slowest one's time counts.

    They, and the actors that they start, see this process's settings of S3.
    """
    import ray

    names = {name: os.environ[name] for name in _S3_VARIABLES if name in os.environ}
    remote = ray.remote(num_cpus=0, runtime_env={"env_vars": names})(ours)
    with tempfile.TemporaryDirectory(prefix="unigeoseg-") as name:
        parts = [
            remote.remote(config, store, tokenizer, mode, rank, world, Path(name)) for rank in range(world)
        ]
        found = ray.get(parts)
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
