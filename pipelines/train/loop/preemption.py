"""A checkpoint before its time: the machine will be taken away, or the job was told to end."""

import os
import signal
import threading
from dataclasses import dataclass
from types import FrameType, TracebackType

import torch
import torch.distributed as dist

from pipelines.train.engine.engine import Engine
from pipelines.train.loop.channel import Channel

_SECONDS = 0.5


@dataclass(frozen=True)
class Wish:
    """What the ranks agreed on after a step: a checkpoint now, and whether to end after it.

    ``asked`` is the number of the newest wish that the checkpoint answers.
    """

    checkpoint: bool = False
    end: bool = False
    asked: int = 0


class Notice:
    """Hears of wishes, in rank 0 from the driver, without Ray from SIGTERM too; a context manager.

    Entering is a collective call. What a group of workers before this one has answered is no wish any more.

    Args:
        engine: for agreeing.
        channel: to the driver.
        catch: whether SIGTERM is caught: this process is the job, or one of torchrun's.
    """

    def __init__(self, engine: Engine, channel: Channel, catch: bool) -> None:
        self._engine, self._channel = engine, channel
        self._catch = catch and threading.current_thread() is threading.main_thread()
        self._asked = self._done = 0
        self._end = False
        self._stop = threading.Event()

    def __enter__(self) -> "Notice":
        if self._catch:
            self._before = signal.signal(signal.SIGTERM, self._terminated)
        answered = self._channel.answered() if self._engine.rank == 0 else 0
        self._asked = self._done = self._engine.gather(answered)[0]
        if self._engine.rank == 0:
            threading.Thread(target=self._listen, name="notice", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._catch:
            signal.signal(signal.SIGTERM, self._before)

    def agreed(self) -> Wish:
        """What the ranks do after this step, the same on all of them; a collective call."""
        wanted = [self._asked, int(self._end)]
        if self._engine.world > 1:
            values = torch.tensor(wanted, device=self._engine.device)
            dist.all_reduce(values, dist.ReduceOp.MAX)
            wanted = values.tolist()
        new, self._done = wanted[0] > self._done, max(self._done, wanted[0])
        return Wish(new or bool(wanted[1]), bool(wanted[1]), self._done)

    def _terminated(self, number: int, frame: FrameType | None) -> None:
        if self._end:  # told twice
            os._exit(128 + number)
        self._end = True

    def _listen(self) -> None:
        while not self._stop.wait(_SECONDS):
            try:
                self._asked = max(self._asked, self._channel.asked())
            except Exception:  # the driver is gone; Ray ends this worker
                return
