"""What one step of a rank takes in, gathered from the stream's micro-batches."""

from collections.abc import Iterator
from dataclasses import dataclass

from pipelines.stream.quarantine import BadSampleEvent
from pipelines.stream.stream import StreamItem, StreamStats
from unigeoseg.samples.batch import Batch


@dataclass
class StepInput:
    """A step's micro-batches of this rank, how long they were waited for, what was replaced in them."""

    step: int
    batches: list[Batch]
    wait: float
    stats: StreamStats
    events: list[BadSampleEvent]

    @property
    def sample_ids(self) -> list[str]:
        """Of all micro-batches, in plan order."""
        return [name for batch in self.batches for name in batch.sample_ids]


def steps_of(stream: Iterator[StreamItem], micro_batches: int) -> Iterator[StepInput]:
    """The stream's micro-batches, a step's together."""
    batches: list[Batch] = []
    events: list[BadSampleEvent] = []
    wait = 0.0
    for item in stream:
        batches.append(item.batch)
        events += item.events
        wait += item.wait_s
        if len(batches) == micro_batches:
            yield StepInput(item.step, batches, wait, item.stats, events)
            batches, events, wait = [], [], 0.0
