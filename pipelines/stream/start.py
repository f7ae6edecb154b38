"""The first block of a dataset whose actors may find no free CPU: Ray Data would wait for one for ever."""

import logging
import queue
import threading
import time
from collections.abc import Iterator
from typing import Final, TypeVar

import ray

from unigeoseg.errors import UserError

logger = logging.getLogger(__name__)
_T = TypeVar("_T")
#: Seconds without a free CPU after which a cluster that cannot grow is given up.
PATIENCE_S: Final = 60.0
_LOOK_S: Final = 2.0


def first_of(source: Iterator[_T], actor: str, patience_s: float = PATIENCE_S) -> Iterator[_T]:
    """All of ``source``; while the first one is waited for, a look whether its actors can start at all.

    Args:
        source: what Ray Data delivers.
        actor: part of the class name of the actors that are needed.
        patience_s: how long there may be neither such an actor nor a free CPU.

    Raises:
        UserError: no actor of that name runs, no CPU is free, and the cluster cannot grow.
    """
    answers: queue.SimpleQueue[tuple[list[_T], BaseException | None]] = queue.SimpleQueue()

    def fetch() -> None:
        try:
            answers.put(([next(source)], None))
        except BaseException as error:  # raised where the answer is taken
            answers.put(([], error))

    # A daemon: nothing can end it while Ray Data waits.
    threading.Thread(target=fetch, name="first-block", daemon=True).start()
    began, warned = time.monotonic(), False
    while True:
        try:
            items, error = answers.get(timeout=_LOOK_S)
            break
        except queue.Empty:
            if not _stuck(actor):
                began, warned = time.monotonic(), False
                continue
        if not warned:
            warned = True
            logger.warning("no CPU is free for a data actor (data.decode=actors); waiting for one")
        if time.monotonic() - began >= patience_s and not _may_grow():
            there = ray.cluster_resources().get("CPU", 0.0)
            raise UserError(
                "no CPU is free for a data actor: data.decode=actors needs one for each training worker, and "
                f"all {there:g} of the cluster are taken; add nodes, lower scale.workers or "
                "scale.cpus_per_worker, or set data.decode=worker"
            )
    if isinstance(error, StopIteration):
        return
    if error is not None:
        raise error
    yield from items
    yield from source


def _stuck(actor: str) -> bool:
    """Neither a CPU nor an actor of this job with that name is there."""
    if ray.available_resources().get("CPU", 0.0) >= 1:
        return False
    job = ray.JobID.from_hex(ray.get_runtime_context().get_job_id())
    found = ray._private.state.actors(job_id=job, actor_state_name="ALIVE")
    return not any(actor in entry["ActorClassName"] for entry in found.values())


def _may_grow() -> bool:
    """Whether an autoscaler may bring more CPUs than there are."""
    limit = ray._private.state.state.get_max_resources_from_cluster_config()
    return limit is not None and limit.get("CPU", 0.0) > ray.cluster_resources().get("CPU", 0.0)
