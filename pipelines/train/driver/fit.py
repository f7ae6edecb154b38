"""Ray Train for one job: the workers, restarted as often as the configuration allows, and their end."""

import logging
import signal
import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import ray
import ray.train
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipelines.cluster_view.ray_private import leaving_nodes
from pipelines.runs.folder import RunFolder
from pipelines.runs.job import Job, Outcome
from pipelines.runs.observer import Observer, RunStopped
from pipelines.tracking.gauges import Exported
from pipelines.train.driver.avoid import AvoidNodes
from pipelines.train.driver.ray_train_private import Trainer
from pipelines.train.driver.resizing import WholeBatches
from pipelines.train.driver.restarts import FailuresInARow
from pipelines.train.loop.channel import ANSWER, FATAL, ForwardWarnings, Listener, Mailbox, RayChannel
from pipelines.train.loop.logs import RunLogs
from pipelines.train.loop.progress import Progress

logger = logging.getLogger(__name__)


def fit(job: Job, progress: Progress, observer: Observer | None = None) -> Outcome:
    """Runs the workers to the end.

    Raises:
        KeyboardInterrupt: or ``SystemExit``; the workers wrote a checkpoint if they could in time.
        UserError: and others that a restart would only repeat.
        RunStopped: ``observer`` ended the run.
    """
    # With the driver: a node that is taken away must not take the messages with it.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    mailbox = ray.remote(num_cpus=0, scheduling_strategy=here)(Mailbox).remote()
    exported = Exported(RunFolder(job.run).name)
    try:
        with tempfile.TemporaryDirectory(prefix="unigeoseg-ray-") as bookkeeping:
            trainer = _trainer(job, mailbox, bookkeeping)

            def handle(kind: str, content: dict[str, Any]) -> None:
                if kind == FATAL:
                    trainer.abort()  # instead of a restart that ends the same way
                elif kind == ANSWER:
                    trainer.answers += 1
                    progress.handle("note", content)
                else:
                    if kind == "row":
                        exported.row(content)
                    progress.handle(kind, content)
                    if observer is not None and kind == "row":
                        observer.on_row(content)

            if observer is not None:
                observer.bind(trainer.abort)
            draining = _Draining(lambda: mailbox.ask.remote())
            with Listener(lambda: ray.get(mailbox.drain.remote()), handle, look=draining.look):
                try:
                    _run_workers(trainer, mailbox, job.config.recovery.grace_seconds)
                except Exception as error:
                    if observer is not None and observer.stopped:
                        raise RunStopped("the run was stopped before its end") from error
                    raise
        outcome: Outcome | None = ray.get(mailbox.result.remote())
    finally:
        progress.close()
        ray.kill(mailbox)
    if outcome is None:
        raise RuntimeError("the training workers ended without a result")
    return outcome


class _Draining:
    """Notices that Ray was told that a node will be taken away (spot preemption, `ray drain-node`)."""

    def __init__(self, ask: Callable[[], None]) -> None:
        self._ask = ask
        self._known: set[str] = set()

    def look(self) -> None:
        """Asks for a checkpoint when there is a new one."""
        found = leaving_nodes()
        for node, deadline in found.items():
            if node not in self._known:
                left = f" in {max(0.0, deadline / 1000 - time.time()):.0f} s" if deadline else ""
                logger.warning("node %s will be taken away%s; writing a checkpoint", node[:8], left)
                self._ask()
        self._known |= set(found)


def _run_workers(trainer: Trainer, mailbox: Any, grace: float) -> None:
    try:
        trainer.fit()
    except (KeyboardInterrupt, SystemExit):
        try:
            _last_checkpoint(trainer, mailbox, grace)
        finally:
            trainer.abort()
        raise
    except Exception as error:
        raise ray.get(mailbox.failure.remote()) or error from None
    # A group that was restarted after a final error returns without one of its own.
    if failure := ray.get(mailbox.failure.remote()):
        raise failure


def _last_checkpoint(trainer: Trainer, mailbox: Any, grace: float) -> None:
    """Lets the workers write one before they end; a second signal cuts this short."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    before, deadline = trainer.answers, time.monotonic() + grace
    logger.warning("told to end: waiting up to %.0f s for a checkpoint (again to end at once)", grace)
    mailbox.ask.remote()
    while trainer.answers == before and time.monotonic() < deadline:
        time.sleep(0.2)
    if trainer.answers == before:
        logger.warning("no checkpoint within %.0f s (recovery.grace_seconds); the one before counts", grace)


def _trainer(job: Job, mailbox: Any, bookkeeping: str) -> Trainer:
    """The trainer; ``bookkeeping`` is for Ray Train's own files, as checkpoints are ours."""
    scale, sizes = job.config.scale, job.config.world_sizes()
    per_worker = {"CPU": scale.cpus_per_worker, **scale.resources}
    if scale.gpus_per_worker:
        per_worker["GPU"] = scale.gpus_per_worker
    trainer = Trainer(
        _worker,
        train_loop_config={"job": job, "mailbox": mailbox},
        scaling_config=ray.train.ScalingConfig(
            num_workers=(sizes[0], sizes[-1]) if len(sizes) > 1 else scale.workers,
            use_gpu=scale.gpus_per_worker > 0,
            resources_per_worker=per_worker,
            elastic_resize_monitor_interval_s=scale.resize_seconds,
        ),
        run_config=ray.train.RunConfig(
            name=RunFolder(job.run).name,
            storage_path=bookkeeping,
            failure_config=ray.train.FailureConfig(max_failures=job.config.checkpoint.max_failures),
            callbacks=[AvoidNodes(mailbox)],
        ),
    )
    grace = job.config.recovery.grace_seconds
    trainer.make_scaling = partial(WholeBatches, sizes=tuple(sizes), mailbox=mailbox, patience=grace)
    trainer.make_policy = partial(FailuresInARow, run=job.run)
    return trainer


def _worker(settings: dict[str, Any]) -> None:
    """What each Ray Train worker runs; driver and controller start without the model's libraries."""
    from pipelines.stream import open_stream
    from pipelines.train.loop.loop import run_loop

    mailbox = settings["mailbox"]
    channel = RayChannel(mailbox)
    job = settings["job"]
    with RunLogs(RunFolder(job.run).name), ForwardWarnings(channel):
        outcome = run_loop(job, channel, open_stream)
    if outcome is not None and ray.train.get_context().get_world_rank() == 0:
        ray.get(mailbox.finish.remote(outcome))
