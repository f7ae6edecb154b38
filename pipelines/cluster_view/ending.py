"""The end of a connection to Ray."""

import threading
import time

#: Seconds for what Ray Data still does; it is told to stop by then, and needs a moment.
_PATIENCE = 15.0
#: A thread that waits for blocks which never come once its dataset is left: it asks for nothing, for good.
_PARKED = "Prefetcher"


def end_ray() -> None:
    """``ray.shutdown()``, once no thread of Ray Data is at work.

    One that asks Ray for anything after it makes Ray end the whole process, without a word and without an
    exception (``core_worker_process.cc``: "accesses the Ray's worker after it is shutdown. The process will
    exit"). A dataset that is left in the middle, as an error does, has such threads for a moment.
    """
    import ray

    deadline = time.monotonic() + _PATIENCE
    for thread in threading.enumerate():
        if _of_ray_data(thread):
            thread.join(max(0.0, deadline - time.monotonic()))
    ray.shutdown()


def _of_ray_data(thread: threading.Thread) -> bool:
    if thread.name == _PARKED:
        return False
    target = getattr(thread, "_target", None)  # the function of a plain thread
    return any(str(getattr(one, "__module__", "")).startswith("ray.data") for one in (type(thread), target))
