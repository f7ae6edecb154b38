"""Work on several threads, its results in order and few of them waiting."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
#: Requests under way at a time; an answer takes tens of milliseconds, whoever waits for it.
THREADS = 32


def cores() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ahead(
    work: Callable[[Item], Result], items: Iterable[Item], threads: int = THREADS, waiting: int | None = None
) -> Iterator[Result]:
    """``work`` of each item, in the order of the items.

    Args:
        work: runs on a thread.
        items: taken as room comes free, never all at once.
        threads: how many work at a time.
        waiting: most items begun and not taken yet; default: twice the threads.

    Raises:
        Exception: what ``work`` raises, in the item's place; what was begun is waited for, no more begins.
    """
    most = waiting or 2 * threads
    begun: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for item in items:
            if len(begun) >= most:
                yield begun.popleft().result()
            begun.append(pool.submit(work, item))
        while begun:
            yield begun.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
