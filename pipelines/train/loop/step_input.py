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


class Steps(Iterator[StepInput]):
    """The stream's micro-batches, a step's together.

    Args:
        stream: of this rank.
        micro_batches: of a step.
    """

    def __init__(self, stream: Iterator[StreamItem], micro_batches: int) -> None:
        self._steps = _steps_of(stream, micro_batches)
        self._next: StepInput | None = None

    def __next__(self) -> StepInput:
        found, self._next = self._next, None
        return found or next(self._steps)

    def following(self) -> Batch | None:
        """The first micro-batch of the step that comes next, ``None`` where none comes; it is still to come.

        The wait for it is this call's, no longer that step's.
        """
        if self._next is None:
            self._next = next(self._steps, None)
            if self._next is not None:
                self._next.wait = 0.0
        return self._next.batches[0] if self._next else None


def _steps_of(stream: Iterator[StreamItem], micro_batches: int) -> Iterator[StepInput]:
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
