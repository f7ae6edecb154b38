"""A job's log as it grows, across lost connections, and its end."""

import asyncio
import re
import sys
import time
from collections.abc import Callable
from typing import Any

import aiohttp
import requests
from ray.job_submission import JobStatus
from tqdm import tqdm

from cluster.errors import InputError

_STEP = re.compile(r"\bstep (\d+)/(\d+)\b")
_PATIENCE_SECONDS = 300.0
_ENDED = {JobStatus.SUCCEEDED: 0, JobStatus.FAILED: 1, JobStatus.STOPPED: 130}


class Follower:
    """Prints a job's log; on a terminal with a bar of its training steps below.

    Args:
        client: of the job server.
        job: submission id.
        patience: seconds without any answer of the server after which it gives up.
    """

    def __init__(self, client: Any, job: str, patience: float = _PATIENCE_SECONDS) -> None:
        self._client, self._job, self._patience = client, job, patience
        self._seen = 0
        self._rest = ""
        self._bar: Any = None

    def run(self) -> int:
        """Follows to the end; returns the job's own exit code.

        A lost connection is made again, and what was printed already is left out of what comes then.

        Raises:
            InputError: the job is unknown, or the server does not answer for longer than the patience.
        """
        lost: float | None = None
        try:
            while True:
                try:
                    asyncio.run(self._tail())
                    details = self._client.get_job_info(self._job)
                    if details.status in _ENDED:
                        self._flush()
                        return exit_code(details)
                    lost = None
                except (RuntimeError, OSError, aiohttp.ClientError, requests.RequestException) as error:
                    lost = self._wait(error, lost)
                time.sleep(0.5)
        finally:
            if self._bar is not None:
                self._bar.close()

    async def _tail(self) -> None:
        skip = self._seen
        async for text in self._client.tail_job_logs(self._job):
            fresh = text[skip:] if skip < len(text) else ""
            skip = max(0, skip - len(text))
            if fresh:
                self._seen += len(fresh)
                self._show(fresh)

    def _wait(self, error: Exception, lost: float | None) -> float:
        if "does not exist" in str(error):
            raise InputError(f"no job {self._job} on this cluster; `unigeoseg submit list` shows them")
        now = time.monotonic()
        if lost is None:
            print(f"connection lost ({type(error).__name__}); the job goes on, trying again", file=sys.stderr)
            return now
        if now - lost > self._patience:
            raise InputError(
                f"the job server has not answered for {self._patience:.0f} s; follow the job later with "
                f"`unigeoseg submit follow {self._job}`"
            ) from error
        return lost

    def _show(self, text: str) -> None:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._line(line)

    def _flush(self) -> None:
        if self._rest:
            self._line(self._rest)
            self._rest = ""

    def _line(self, line: str) -> None:
        found = _STEP.search(line)
        if found and sys.stderr.isatty():
            self._progress(int(found[1]), int(found[2]), line[found.end() :].strip())
            return
        write: Callable[[str], Any] = self._bar.write if self._bar is not None else print
        write(line)
        sys.stdout.flush()

    def _progress(self, done: int, total: int, text: str) -> None:
        if self._bar is None:
            self._bar = tqdm(total=total, unit="step", file=sys.stderr, dynamic_ncols=True)
        self._bar.n = done
        self._bar.set_postfix_str(text.partition(" ")[2], refresh=False)
        self._bar.refresh()


def exit_code(details: Any) -> int:
    """The job's own exit code; of one that was stopped 130, of one that never ran 1."""
    if details.status in (JobStatus.SUCCEEDED, JobStatus.FAILED) and details.driver_exit_code is not None:
        return int(details.driver_exit_code)
    return _ENDED.get(details.status, 1)
