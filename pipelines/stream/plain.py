"""The stream without Ray: the same reading and collating in a small thread pool of this process."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from pipelines.config import Config
from pipelines.store.reader import ReadStats
from pipelines.stream.assemble import Assembler
from pipelines.stream.layout import Layout
from pipelines.stream.stream import Arrival, Stream, request_layout


def open_plain_stream(
    config: Config,
    store: str,
    tokenizer_path: str,
    rank: int = 0,
    world: int = 1,
    start_step: int = 0,
    stop_step: int | None = None,
) -> Stream:
    """As :func:`pipelines.stream.open_stream`, in threads instead of Ray Data."""
    assembler = Assembler(config, store, tokenizer_path)
    layout = request_layout(config, assembler.plan, rank, world, start_step, stop_step)
    return Stream(_arrivals(assembler, layout, config.data.prefetch_batches))


def load_block(assembler: Assembler, layout: Layout, number: int) -> list[Arrival]:
    """Reads, decodes and collates one block; what reading cost comes with its first micro-batch."""
    arrivals, stats = [], ReadStats()
    for filled in assembler.fill(layout.block(number), stats):
        arrivals.append(Arrival(filled.micro, assembler.batch(filled), filled.events, ReadStats()))
        del filled  # its pixels make room for the next one's
    arrivals[0].read = stats
    return arrivals


def _arrivals(assembler: Assembler, layout: Layout, ahead: int) -> Iterator[Arrival]:
    pool = ThreadPoolExecutor(max_workers=max(1, min(ahead, 4)), thread_name_prefix="stream")
    waiting: deque[Future[list[Arrival]]] = deque()
    try:
        for number in range(layout.blocks):
            waiting.append(pool.submit(load_block, assembler, layout, number))
            if len(waiting) > ahead:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
