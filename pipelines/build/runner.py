"""Runs a function over numbers: one after the other in this process, or as Ray Data tasks."""

import errno
import logging
import os
import pickle
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import islice
from typing import Any, Protocol

import cv2

from pipelines.cluster_view.ending import end_ray
from pipelines.storage.ahead import cores
from unigeoseg.errors import UserError

#: Is given a number, or what a task of that number needs.
Work = Callable[[Any], dict[str, Any]]
#: What the task of a number needs beside the work itself, which every task gets.
Part = Callable[[int], Any]


class Runner(Protocol):
    """Runs a function over numbers and gives ``(number, result)`` in whatever order they finish."""

    def __call__(
        self, work: Work, numbers: Iterable[int], part: Part | None = None
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """``work`` is called with ``part(number)``, without ``part`` with the number."""
        ...


#: Ray Data gets so many numbers at a time, each a task: what all tasks need is never there at once, and the
#: wait for the last of a round is small beside it.
_ROUND = 4096
#: The same for large clusters: tasks of a round for each that works at a time.
_TURNS = 32
#: Error numbers of a full disk.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def parallel(workers: int | None) -> int:
    """How many tasks work at a time, inside :func:`open_runner` with the same number."""
    if workers is not None:
        return workers
    import ray

    return max(1, int(ray.cluster_resources().get("CPU", 1)))


@contextmanager
def open_runner(workers: int | None) -> Iterator[Runner]:
    """A runner with so many parallel Ray tasks.

    Args:
        workers: 0 works in this process; ``None`` takes one a CPU, of the cluster that this process is told
            to join (and of what its autoscaler brings), else of this machine.
    """
    if workers == 0:
        yield _here
        return
    import ray

    started = not ray.is_initialized()
    if started:
        # A driver must not join whatever cluster happens to run on this machine, unless it is told to.
        remote = bool(os.environ.get("RAY_ADDRESS"))
        options: dict[str, Any] = {} if remote else {"address": "local", "num_cpus": workers or cores()}
        ray.init(include_dashboard=False if not remote else None, log_to_driver=False, **options)
    from pipelines.cluster_view.autoscaler import call_for_cpus  # with Ray, which workers=0 does without

    if workers is not None:
        call_for_cpus(workers)
    logging.getLogger("ray.data").setLevel(logging.WARNING)  # a line for each dataset is too much
    context = ray.data.DataContext.get_current()
    bars = context.enable_progress_bars
    context.enable_progress_bars = False

    begun: list[Generator[tuple[int, dict[str, Any]], None, None]] = []

    def run(
        work: Work, numbers: Iterable[int], part: Part | None = None
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        begun.append(_with_ray(work, numbers, part, workers))
        return begun[-1]

    try:
        yield run
    finally:
        for one in begun:  # whoever left one in the middle, by an error for instance
            one.close()
        context.enable_progress_bars = bars
        if started:
            end_ray()


def _here(
    work: Work, numbers: Iterable[int], part: Part | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    for number in numbers:
        yield number, _guarded(work, number if part is None else part(number))


def _with_ray(
    work: Work, numbers: Iterable[int], part: Part | None, workers: int | None
) -> Generator[tuple[int, dict[str, Any]], None, None]:
    import ray

    def task(row: dict[str, Any]) -> dict[str, Any]:
        cv2.setNumThreads(1)
        found = _caught(work, pickle.loads(row["part"]))
        return {"number": int(row["number"]), "result": pickle.dumps(found)}

    for rows in rounds(numbers, part, max(_ROUND, _TURNS * parallel(workers))):
        data = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            task, compute=ray.data.TaskPoolStrategy(size=workers)
        )
        # Closed at once where it is left: its threads must not outlive Ray (cluster_view/ending.py).
        with closing(_generator(data.iter_rows())) as found:
            for row in found:
                result = pickle.loads(row["result"])
                if isinstance(result, UserError):
                    raise result
                yield int(row["number"]), result


def _generator(rows: Iterable[dict[str, Any]]) -> Generator[dict[str, Any], None, None]:
    yield from rows


def rounds(numbers: Iterable[int], part: Part | None, most: int) -> Iterator[list[dict[str, Any]]]:
    """Rows of Ray Data, so many at a time; the parts of a round are made when it is taken."""
    left = iter(numbers)
    while taken := list(islice(left, most)):
        yield [{"number": n, "part": pickle.dumps(n if part is None else part(n))} for n in taken]


def _guarded(work: Work, part: Any) -> dict[str, Any]:
    result = _caught(work, part)
    if isinstance(result, UserError):
        raise result
    return result


def _caught(work: Work, part: Any) -> dict[str, Any] | UserError:
    """What the user can put right comes back as a value; a bug is raised where it happened."""
    try:
        return work(part)
    except UserError as error:
        return UserError(str(error))
    except OSError as error:
        if error.errno in FULL:
            return UserError(no_space(error))
        raise


def no_space(error: OSError) -> str:
    """The message of a full disk."""
    where = f" ({error.filename})" if error.filename else ""
    return (
        f"no space is left to write the store{where}: {error.strerror}. Free some and give the same command "
        "again; what is finished stays"
    )
