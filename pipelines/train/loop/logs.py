"""The log of a training worker: each line with run, rank and step, to tell many workers apart.

Under Ray the lines go to the worker's own log file, which the dashboard shows and a log collector reads.
"""

import logging
import os
import sys

from pipelines.storage.secrets import hide, keep_out_of_logs

#: Loggers that are ours, here and in workers.
LOGGERS = ("pipelines", "unigeoseg")
FORMAT = "%(asctime)s %(levelname)s run=%(run)s rank=%(rank)s step=%(step)s %(name)s: %(message)s"
_step: int | None = None


def at_step(step: int) -> None:
    """From here on lines are of this step (from 0)."""
    global _step
    _step = step


def where() -> str:
    """Rank and step of this process in words."""
    return f"rank {_rank()}" + ("" if _step is None else f", step {_step}")


class RunLogs(logging.Handler):
    """Writes what our loggers say, from INFO on, to stderr in :data:`FORMAT`.

    Args:
        run: its name.
    """

    def __init__(self, run: str) -> None:
        super().__init__(logging.INFO)
        self._run = run
        self._levels: dict[str, int] = {}
        self.setFormatter(logging.Formatter(FORMAT))

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one line (an exception's lines follow it)."""
        record.run, record.rank, record.step = self._run, _rank(), "-" if _step is None else _step
        print(hide(self.format(record)), file=sys.stderr, flush=True)

    def __enter__(self) -> "RunLogs":
        keep_out_of_logs()  # also for other libraries' loggers
        for name in LOGGERS:
            logger = logging.getLogger(name)
            self._levels[name] = logger.level
            logger.setLevel(logging.INFO)
            logger.propagate = False
            logger.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        for name in LOGGERS:
            logger = logging.getLogger(name)
            logger.removeHandler(self)
            logger.propagate = True
            logger.setLevel(self._levels[name])


def _rank() -> str:
    """As Ray Train and torchrun tell it to their workers."""
    return os.environ.get("RANK", "0")
