"""A stream as a chain of datasets, each started before the one ahead of it ends.

One dataset for a whole run would take longer to open the longer the run is. Opened one after another, the
stream would stop at each seam: actors take seconds to start.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import ray

from pipelines.cluster_view.autoscaler import has_autoscaler
from pipelines.cluster_view.ray_private import classes_of_placed_actors
from unigeoseg.errors import UserError

logger = logging.getLogger(__name__)
T = TypeVar("T")
#: Seconds without a free CPU after which a cluster that cannot grow is given up.
PATIENCE_S: Final = 60.0
_LOOK_S: Final = 2.0


@dataclass(frozen=True)
class Leg(Generic[T]):
    """One dataset of the chain.

    Attributes:
        count: items that it has.
        open: starts it.
    """

    count: int
    open: Callable[[], Iterator[T]]


class Started(Iterator[T]):
    """An iterator whose first item is already being fetched, by a thread of its own.

    Args:
        source: opens the iterator; in that thread.
    """

    def __init__(self, source: Callable[[], Iterator[T]]) -> None:
        self._source = source
        self._items: Iterator[T] | None = None
        self._first: list[T] = []
        self._error: BaseException | None = None
        self._arrived, self._begun = threading.Event(), False
        # A daemon: nothing ends it while Ray Data waits for a CPU.
        threading.Thread(target=self._fetch, name="first-block", daemon=True).start()

    def _fetch(self) -> None:
        try:
            self._items = self._source()
            self._first.append(next(self._items))
        except BaseException as error:  # raised where the item is asked for
            self._error = error
        finally:
            self._arrived.set()

    def there(self, seconds: float) -> bool:
        """Whether the first item, or the error in its place, is there within so many seconds."""
        return self._arrived.wait(seconds)

    def __next__(self) -> T:
        if self._begun:
            assert self._items is not None
            return next(self._items)
        self._arrived.wait()
        self._begun = True
        if self._error is not None:
            self._items = iter(())
            raise self._error
        return self._first.pop()

    def close(self) -> None:
        """Ends the iterator, unless its first item is still being fetched."""
        close = getattr(self._items, "close", None)
        if close is not None and (self._begun or self._arrived.is_set()):
            close()


def chained(
    legs: Iterable[Leg[T]], ahead: int, watch: Callable[[Started[T]], Any] = lambda started: None
) -> Iterator[T]:
    """All items of all legs in order; at most two legs are open at a time.

    Args:
        legs: in order.
        ahead: the next leg is started when the open one has so many items left.
        watch: is given each leg before its first item is waited for; may raise.
    """
    rest = iter(legs)
    leg = next(rest, None)
    current = None if leg is None else Started(leg.open)
    following: Started[T] | None = None
    try:
        while leg is not None and current is not None:
            after = next(rest, None)
            watch(current)
            for number, item in enumerate(current, 1):
                if following is None and after is not None and leg.count - number <= ahead:
                    following = Started(after.open)
                yield item
            current.close()
            leg, current, following = after, following, None
    finally:
        for started in (current, following):
            if started is not None:
                started.close()


class CpuWatch:
    """Waits for a leg whose actors may find no free CPU: Ray Data would wait for one for ever.

    Args:
        actor: part of the class name of the actors that are needed.
        patience_s: how long there may be neither such an actor nor a free CPU.
    """

    def __init__(self, actor: str, patience_s: float) -> None:
        self._actor, self._patience_s = actor, patience_s

    def __call__(self, started: Started[Any]) -> None:
        """Returns when the leg's first item is there.

        Raises:
            UserError: no actor of that name has a place, no CPU is free, and the cluster cannot grow.
        """
        since, warned = time.monotonic(), False
        while not started.there(min(_LOOK_S, self._patience_s)):
            if not self._stuck():
                since = time.monotonic()
                continue
            if not warned:
                warned = True
                logger.warning("no CPU is free for a data actor (data.decode=actors); waiting for one")
            if time.monotonic() - since >= self._patience_s and not has_autoscaler():
                there = ray.cluster_resources().get("CPU", 0.0)
                raise UserError(
                    "no CPU is free for a data actor: data.decode=actors needs one for each training worker, "
                    f"and all {there:g} of the cluster are taken; add nodes, lower scale.workers or "
                    "scale.cpus_per_worker, or set data.decode=worker"
                )

    def _stuck(self) -> bool:
        """Neither a CPU nor an actor of this job with that name is there."""
        if ray.available_resources().get("CPU", 0.0) >= 1:
            return False
        return not any(self._actor in name for name in classes_of_placed_actors())
