"""A rank that makes no step for too long: every rank writes its stacks, then ends, so that the run restarts.

A collective in which one rank is missing never returns and raises nothing. Each rank therefore watches its
own steps from a thread. A rank that is stopped or stuck beyond that writes no stacks; the others say so and
end it with themselves where they are on the same machine.
"""

import faulthandler
import logging
import os
import signal
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import psutil

from pipelines.runs.folder import RunFolder
from pipelines.train.engine.distributed import last_collectives
from pipelines.train.engine.engine import Engine
from pipelines.train.loop.channel import Channel

logger = logging.getLogger(__name__)
STACKS = "stacks"
#: Exit status of a rank that ended itself.
STALLED = 75


class Watchdog:
    """Watches the steps of this rank; a context manager. Entering is a collective call.

    Args:
        engine: for the rank and its peers.
        run: where the stacks are written, as ``stacks/<time>-rank-<n>.txt``, and beside them what the rank's
            last collectives were.
        channel: to the driver.
        seconds: allowed without a sign of life; ``None`` switches the watch off.
    """

    def __init__(self, engine: Engine, run: RunFolder, channel: Channel, seconds: float | None) -> None:
        self._engine, self._run, self._channel, self._seconds = engine, run, channel, seconds
        self._last, self._what = time.monotonic(), "the start"
        self._stop = threading.Event()
        self._peers: list[tuple[int, str, int]] = []

    def beat(self, what: str) -> None:
        """A sign of life; ``what`` has just been done."""
        self._last, self._what = time.monotonic(), what

    def __enter__(self) -> "Watchdog":
        if self._seconds is not None:
            self._peers = self._engine.gather((self._engine.rank, socket.gethostname(), os.getpid()))
            self.beat("the start")
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()

    def _watch(self) -> None:
        assert self._seconds is not None
        while not self._stop.wait(min(1.0, self._seconds / 10)):
            if time.monotonic() - self._last > self._seconds:
                self._end()

    def _end(self) -> None:
        """Stacks, a word to the driver, and the end of this process."""
        assert self._seconds is not None
        stem = f"{STACKS}/{time.strftime('%Y%m%d-%H%M%S')}-rank-{self._engine.rank}"
        name = f"{stem}.txt"
        with suppress(Exception):  # nothing may keep a stuck process alive
            self._write(self._run.local(name))
            logger.error(
                "rank %d has done nothing for %.0f s since %s; its stacks are in %s/%s; the workers start "
                "anew from the newest checkpoint (recovery.stall_seconds)",
                self._engine.rank,
                self._seconds,
                self._what,
                self._run.path,
                name,
            )
            self._run.publish(name)
        with suppress(Exception):
            self._run.local(f"{stem}-collectives.json").write_bytes(last_collectives())
            self._run.publish(f"{stem}-collectives.json")
        # The others write theirs meanwhile; their clocks differ by less than a step.
        time.sleep(min(20.0, max(3.0, self._seconds / 10)))
        host = socket.gethostname()
        for rank, where, process in self._peers:
            if where == host and process != os.getpid():
                with suppress(Exception):
                    logger.error("ending rank %d (process %d, %s)", rank, process, _state(process))
                    os.kill(process, signal.SIGKILL)
        time.sleep(1.0)  # the words are on their way
        os._exit(STALLED)

    def _write(self, path: Path) -> None:
        with path.open("w", encoding="utf-8") as file:
            file.write(f"rank {self._engine.rank}, process {os.getpid()} on {socket.gethostname()}\n")
            file.write(f"nothing done for {time.monotonic() - self._last:.0f} s since {self._what}\n")
            for rank, host, process in self._peers:
                state = _state(process) if host == socket.gethostname() else "another machine"
                file.write(f"rank {rank}: process {process} on {host}: {state}\n")
            file.write("\n")
            file.flush()
            faulthandler.dump_traceback(file, all_threads=True)


def _state(process: int) -> str:
    try:
        return str(psutil.Process(process).status())
    except psutil.Error:
        return "gone"
