"""Seconds of the parts of a step: by the host's clock, on a GPU by events of the stream that works."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch.cuda import nvtx
from torch.profiler import record_function

from pipelines.train.engine.step import StepSeconds

#: Makes an event that has ``record()``, ``synchronize()`` and ``elapsed_time(later)`` in milliseconds.
MakeEvent = Callable[[], Any]


def event_of(device: torch.device) -> MakeEvent | None:
    """Events of a GPU; ``None`` for a device whose calls return when their work is done."""
    return partial(torch.cuda.Event, enable_timing=True) if device.type == "cuda" else None


class StepClock:
    """Takes the time of a step's parts, each of which may come several times.

    A GPU's calls return before their work is done, so the host's clock would measure how long they take to
    queue. Events lie in the queue itself; they are read once, in :meth:`seconds`, which waits for the last.

    Args:
        wait: seconds this rank waited for the data.
        event: see :func:`event_of`.
    """

    def __init__(self, wait: float, event: MakeEvent | None) -> None:
        self._found, self._event = StepSeconds(wait=wait), event
        self._queued: list[tuple[str, Any, Any]] = []

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Times what is done or queued inside as ``name``, a field of :class:`StepSeconds`.

        The part has its name in traces of ``torch.profiler`` and, on a GPU, of Nsight (NVTX).
        """
        with record_function(name), nvtx.range(name) if torch.cuda.is_available() else nullcontext():
            if self._event is None:
                begin = time.perf_counter()
                yield
                self._add(name, time.perf_counter() - begin)
                return
            begin, end = self._event(), self._event()
            begin.record()
            yield
            end.record()
            self._queued.append((name, begin, end))

    def waited(self, seconds: float) -> None:
        """Adds to the wait for data."""
        self._add("wait", seconds)

    def seconds(self) -> StepSeconds:
        """Of all parts so far; on a GPU this waits until they are over."""
        if self._queued:
            self._queued[-1][2].synchronize()
        for name, begin, end in self._queued:
            self._add(name, begin.elapsed_time(end) / 1000)
        self._queued = []
        return self._found

    def _add(self, name: str, seconds: float) -> None:
        setattr(self._found, name, getattr(self._found, name) + seconds)
