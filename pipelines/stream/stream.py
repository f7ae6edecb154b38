"""The iterator that training consumes, and what it reports."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from pipelines.config import Config
from pipelines.plan.plan import Plan
from pipelines.store.reader import ReadStats
from pipelines.stream.layout import Layout, Micro
from pipelines.stream.quarantine import BadSampleEvent, count_reasons
from unigeoseg.samples.batch import Batch


@dataclass
class StreamStats:
    """Totals of one worker's stream since it was opened.

    Attributes:
        wait_s: seconds that the consumer waited for a micro-batch.
        first_wait_s: of these, before the first one.
        batches: micro-batches delivered.
        read: requests, bytes, repeated requests and seconds of reading; seconds of decoding (summed over
            threads or actors).
        quarantined: number of different bad samples, by reason.
    """

    wait_s: float = 0.0
    first_wait_s: float = 0.0
    batches: int = 0
    read: ReadStats = field(default_factory=ReadStats)
    quarantined: dict[str, int] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """As JSON prints it."""
        return {
            "wait": self.wait_s,
            "first_wait": self.first_wait_s,
            "bytes": self.read.bytes,
            "requests": self.read.requests,
            "retries": self.read.retries,
            "read_seconds": self.read.seconds,
            "decode_seconds": self.read.decode_seconds,
            "samples": self.read.samples,
            "images": self.read.images,
            "batches": self.batches,
            "quarantined": self.quarantined,
        }


@dataclass(frozen=True)
class StreamItem:
    """A micro-batch as it arrives.

    Attributes:
        step: optimizer step.
        micro: number within the step on this worker, from 0.
        batch: tensors on the CPU; ``batch.sample_ids`` is what was really delivered.
        wait_s: seconds that this micro-batch was waited for.
        stats: totals of the stream so far.
        events: the bad samples that were replaced in it; a
            :class:`~pipelines.stream.quarantine.Quarantine` judges those of all workers.
    """

    step: int
    micro: int
    batch: Batch
    wait_s: float
    stats: StreamStats
    events: list[BadSampleEvent]


@dataclass
class Arrival:
    """What a mode's source yields: a micro-batch, and the news that came with it."""

    micro: Micro
    batch: Batch
    events: list[BadSampleEvent]
    read: ReadStats


class Stream(Iterator[StreamItem]):
    """A worker's micro-batches in plan order. Close it, or use it as a context manager.

    Args:
        source: yields the arrivals.
    """

    def __init__(self, source: Iterator[Arrival]) -> None:
        self.stats = StreamStats()
        self._source = source
        self._bad: dict[str, BadSampleEvent] = {}

    def __next__(self) -> StreamItem:
        started = time.perf_counter()
        arrival = next(self._source)
        waited = time.perf_counter() - started
        stats = self.stats
        if not stats.batches:
            stats.first_wait_s = waited
        stats.wait_s += waited
        stats.batches += 1
        stats.read.add(arrival.read)
        if arrival.events:
            self._bad.update((e.sample_id, e) for e in arrival.events)
            stats.quarantined = count_reasons(self._bad.values())
        micro = arrival.micro
        return StreamItem(micro.step, micro.micro, arrival.batch, waited, stats, arrival.events)

    def close(self) -> None:
        """Ends reading ahead."""
        close = getattr(self._source, "close", None)
        if close is not None:
            close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def request_layout(
    config: Config, plan: Plan, rank: int, world: int, start_step: int, stop_step: int | None
) -> Layout:
    """The layout of a request; what does not fit is refused before anything is read.

    Raises:
        UserError: the steps or the world size do not fit.
    """
    stop = plan.steps if stop_step is None else stop_step
    if stop > start_step:
        plan.batch(start_step)
        plan.batch(stop - 1)
    return Layout.of(config, rank, world, start_step, stop)
