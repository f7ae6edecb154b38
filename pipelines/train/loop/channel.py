"""How the training worker talks to the driver: rows, warnings, the end, and what must not be retried.

The driver owns the mailbox, so it outlives the workers: a restarted group finds there what stopped the one
before.
"""

import logging
import socket
import threading
from collections.abc import Callable
from typing import Any, Protocol

from pipelines.runs.job import Outcome
from pipelines.train.loop.logs import LOGGERS, where

#: Kind of the message that says that a restart is of no use.
FATAL = "fatal"
#: Kind of the message that a checkpoint that was asked for is whole; ``asked`` is the number of the wish.
ANSWER = "answer"


class Channel(Protocol):
    """What the loop needs of its driver."""

    def post(self, kind: str, content: dict[str, Any]) -> None:
        """Sends a message; never waits."""

    def fail(self, error: BaseException) -> None:
        """Reports an error that a restart would only repeat; returns when it has arrived."""

    def failed(self) -> bool:
        """Whether such an error was reported before."""

    def asked(self) -> int:
        """How many checkpoints before their time the driver has asked for."""

    def answered(self) -> int:
        """Number of the newest of them that was written, by this group of workers or one before it."""

    def place(self) -> str:
        """Name of the machine that this process runs on."""

    def leave_out(self, places: dict[str, str]) -> None:
        """Tells which machines must not train any more, and why; returns when it has arrived."""


class Mailbox:
    """Messages in order, and the error that stopped the run: an actor in Ray, the channel in one process."""

    def __init__(self) -> None:
        self._messages: list[tuple[str, dict[str, Any]]] = []
        self._failure: BaseException | None = None
        self._outcome: Outcome | None = None
        self._asked = self._answered = 0
        self._unfit: dict[str, str] = {}
        self._lock = threading.Lock()

    def post(self, kind: str, content: dict[str, Any]) -> None:
        """Takes a message."""
        with self._lock:
            self._messages.append((kind, content))
            if kind == ANSWER:
                self._answered = max(self._answered, int(content["asked"]))

    def drain(self) -> list[tuple[str, dict[str, Any]]]:
        """The messages since the last call."""
        with self._lock:
            messages, self._messages = self._messages, []
        return messages

    def fail(self, error: BaseException) -> None:
        """Keeps the first error, and tells the reader of the messages."""
        self._failure = self._failure or error
        self.post(FATAL, {})

    def failed(self) -> bool:
        """Whether there was one."""
        return self._failure is not None

    def failure(self) -> BaseException | None:
        """The error."""
        return self._failure

    def ask(self) -> int:
        """Asks for a checkpoint before its time; the wish's number, from 1."""
        self._asked += 1
        return self._asked

    def asked(self) -> int:
        """How many were asked for."""
        return self._asked

    def answered(self) -> int:
        """Number of the newest wish that was written; one checkpoint may answer several."""
        return self._answered

    def place(self) -> str:
        """Of a run without Ray: the host."""
        return socket.gethostname()

    def leave_out(self, places: dict[str, str]) -> None:
        """Keeps them."""
        self._unfit |= places

    def unfit_nodes(self) -> dict[str, str]:
        """Machines that must not train any more, and why."""
        return self._unfit

    def finish(self, outcome: Outcome) -> None:
        """Takes the result of a run that reached its end."""
        self._outcome = outcome

    def result(self) -> Outcome | None:
        """It, once there is one."""
        return self._outcome


class RayChannel:
    """A channel to a :class:`Mailbox` that is a Ray actor."""

    def __init__(self, mailbox: Any) -> None:
        self._mailbox = mailbox

    def post(self, kind: str, content: dict[str, Any]) -> None:
        """Sends without waiting for the answer."""
        self._mailbox.post.remote(kind, content)

    def fail(self, error: BaseException) -> None:
        """Waits until the driver's mailbox has it."""
        import ray

        ray.get(self._mailbox.fail.remote(error))

    def failed(self) -> bool:
        """Asks the mailbox."""
        import ray

        return bool(ray.get(self._mailbox.failed.remote()))

    def asked(self) -> int:
        """Asks the mailbox."""
        import ray

        return int(ray.get(self._mailbox.asked.remote()))

    def answered(self) -> int:
        """Asks the mailbox."""
        import ray

        return int(ray.get(self._mailbox.answered.remote()))

    def place(self) -> str:
        """Ray's id of this node."""
        import ray

        return str(ray.get_runtime_context().get_node_id())

    def leave_out(self, places: dict[str, str]) -> None:
        """Waits until the driver's mailbox has them."""
        import ray

        ray.get(self._mailbox.leave_out.remote(places))


class ForwardWarnings(logging.Handler):
    """Sends warnings of a worker's log to the driver."""

    def __init__(self, channel: Channel) -> None:
        super().__init__(logging.WARNING)
        self._channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        """Posts one record."""
        self._channel.post(
            "log",
            {"level": record.levelno, "name": record.name, "message": f"{where()}: {record.getMessage()}"},
        )

    def __enter__(self) -> "ForwardWarnings":
        for name in LOGGERS:
            logging.getLogger(name).addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        for name in LOGGERS:
            logging.getLogger(name).removeHandler(self)


class Listener:
    """Reads the mailbox in a thread and hands each message on.

    Args:
        drain: returns the new messages.
        handle: called with each, in this listener's thread.
        interval: seconds between looks.
        look: called at each of them too.
    """

    def __init__(
        self,
        drain: Callable[[], list[tuple[str, dict[str, Any]]]],
        handle: Callable[[str, dict[str, Any]], None],
        interval: float = 0.5,
        look: Callable[[], None] = lambda: None,
    ) -> None:
        self._drain, self._handle, self._interval, self._also = drain, handle, interval, look
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def __enter__(self) -> "Listener":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._look()

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            self._look()

    def _look(self) -> None:
        try:
            self._also()
        except Exception as error:  # what workers say must not wait for an answer about the cluster
            logging.getLogger(__name__).debug("no look at the cluster: %s", error)
        try:
            messages = self._drain()
        except Exception as error:  # the cluster may be going down; training tells what happened
            logging.getLogger(__name__).debug("no news from the workers: %s", error)
            return
        for kind, content in messages:
            self._handle(kind, content)
