"""A checkpoint before its time: the machine will be taken away, or the job was told to end."""

import os
import signal
import threading
from dataclasses import dataclass
from types import FrameType, TracebackType

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

    What was heard travels with a step's losses (:meth:`pipelines.train.engine.engine.Engine.train_step`): the
    ranks agree without a message of its own, which on a GPU would be waited for in each step.

    Entering is a collective call. What a group of workers before this one has answered is no wish any more.

    Args:
        engine: whose ranks agree.
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

    def heard(self) -> tuple[int, int]:
        """What this rank has to tell the others with a step."""
        return self._asked if self._engine.rank == 0 else 0, int(self._end)

    def agreed(self, told: tuple[int, ...]) -> Wish:
        """What the ranks do after a step, the same on all of them.

        Args:
            told: the sums over the ranks of what :meth:`heard` gave in it.
        """
        asked, ending = told
        new, self._done = asked > self._done, max(self._done, asked)
        return Wish(new or bool(ending), bool(ending), self._done)

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
