"""Portions over workers: Ray actors, or this process; the same answers either way."""

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from pipelines.evaluate.data import Index
from pipelines.evaluate.records import Portion
from pipelines.evaluate.selection import Rows
from pipelines.evaluate.worker import EvalJob, Worker
from unigeoseg.errors import UserError
from unigeoseg.model import UniGeoSeg
from unigeoseg.samples.tokens import Tokenizer

log = logging.getLogger(__name__)

#: How often a lost actor is started again; its portion is then evaluated anew.
_RESTARTS = 3


#: A portion's number and its rows.
Part = tuple[int, Rows]


def run_here(
    job: EvalJob, parts: Sequence[Part], index: Index, loaded: tuple[UniGeoSeg, Tokenizer] | None = None
) -> Iterator[Portion]:
    """Evaluates the portions one after another in this process."""
    threads = torch.get_num_threads()
    try:
        worker = Worker(job, loaded, index)
        for number, rows in parts:
            yield dataclasses.replace(worker.evaluate(rows), number=number)
    finally:
        torch.set_num_threads(threads)


class _Actor:
    """A worker that loads its model with the first portion, so that what goes wrong there can be told."""

    def __init__(self, job: EvalJob) -> None:
        self._job = job
        self._worker: Worker | None = None

    def evaluate(self, part: Part, shared: list[Any]) -> Portion:
        """Evaluates a portion; ``shared`` holds the index's reference, which is fetched once."""
        import ray

        self._worker = self._worker or Worker(self._job, index=ray.get(shared[0]))
        number, rows = part
        return dataclasses.replace(self._worker.evaluate(rows), number=number)


def run_on_ray(
    job: EvalJob,
    parts: Sequence[Part],
    index: Index,
    workers: int,
    cpus: float = 1.0,
    gpus: float = 0.0,
) -> Iterator[Portion]:
    """Evaluates the portions on actors of the connected Ray cluster, in whatever order they finish.

    Args:
        job: what to do.
        parts: portions.
        index: of the job's data; goes to the actors through the object store, once.
        workers: actors wanted; fewer are started when there are fewer portions, or no room for more.
        cpus: CPUs of an actor.
        gpus: GPUs of an actor.
    """
    # Here, so that a process without Ray can evaluate by itself.
    import ray
    from ray.exceptions import RayTaskError
    from ray.util import ActorPool

    count = min(workers, len(parts), _room(cpus, gpus))
    if count < min(workers, len(parts)):
        log.warning("evaluation.workers is %d, the cluster has room for %d: using those", workers, count)
    limits = {"max_restarts": _RESTARTS, "max_task_retries": _RESTARTS}
    # Outside the placement group of a sweep's trial, if this process is in one: that has no room for them.
    actor = ray.remote(num_cpus=cpus, num_gpus=gpus, scheduling_strategy="DEFAULT", **limits)(_Actor)
    shared = [ray.put(index)]
    actors = [actor.remote(job) for _ in range(count)]
    try:
        yield from ActorPool(actors).map_unordered(lambda a, part: a.evaluate.remote(part, shared), parts)
    except RayTaskError as error:
        raise (error.cause if isinstance(error.cause, UserError) else error) from None
    finally:
        for one in actors:
            ray.kill(one)


def _room(cpus: float, gpus: float) -> int:
    """How many actors the cluster's present nodes can hold, at least one."""
    import ray

    total = ray.cluster_resources()
    room = [int(total.get(k, 0) / need) for k, need in (("CPU", cpus), ("GPU", gpus)) if need > 0]
    return max(1, min(room, default=1))
