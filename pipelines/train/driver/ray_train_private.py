"""What is changed of Ray Train by its insides; nothing else of ours touches these.

``tests/unit/train/test_private_contracts.py`` tells by name what a new version of Ray has changed.
"""

import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.callback import ControllerCallback
from ray.train.v2._internal.execution.failure_handling import DefaultFailurePolicy
from ray.train.v2._internal.execution.scaling_policy import NoopDecision, ResizeDecision
from ray.train.v2._internal.execution.scaling_policy.elastic import ElasticScalingPolicy
from ray.train.v2.api.exceptions import WorkerGroupError

__all__ = ["ControllerCallback", "FailurePolicy", "Trainer", "WholeBatches", "WorkerGroupError"]

logger = logging.getLogger(__name__)
_ABORT_SECONDS = 20


class FailurePolicy(DefaultFailurePolicy):
    """Ray Train's policy on failures, with a say in its count."""

    def forget_failures(self) -> None:
        """Counts from here on."""
        self._worker_group_failures = 0

    def decide_uncounted(self, error: Any) -> Any:
        """What the policy says of a failure of the workers, which does not count."""
        counted = self._worker_group_failures
        self._worker_group_failures = -1
        decision = super().make_decision(error)
        self._worker_group_failures = counted
        return decision


class WholeBatches(ElasticScalingPolicy):
    """As many workers as there is room for, of the numbers that the global batch divides by.

    Ray Train ends a running group as soon as it could have another size, and the steps since the last
    checkpoint with it. Here a checkpoint is asked for first, and the group goes on until it is whole.

    Args:
        scaling: Ray Train's.
        sizes: numbers of workers that fit.
        mailbox: the actor by which workers are asked, and through which they answer.
        patience: seconds until the group is resized without an answer.
    """

    def __init__(self, scaling: Any, sizes: Sequence[int], mailbox: Any, patience: float) -> None:
        super().__init__(scaling)
        self._sizes, self._mailbox, self._patience = sizes, mailbox, patience
        #: Answers before the question, and until when one is awaited.
        self._asked: tuple[int, float] | None = None

    def _count_possible_workers(self, reserved_resources: Any) -> int:
        room = super()._count_possible_workers(reserved_resources)
        return max((size for size in self._sizes if size <= room), default=0)

    def make_decision_for_non_running_worker_group(self) -> Any:
        """Whether to start a group; what was asked of the one before counts no more."""
        self._asked = None
        return super().make_decision_for_non_running_worker_group()

    def make_decision_for_running_worker_group(
        self, worker_group_state: Any, worker_group_status: Any
    ) -> Any:
        """Whether to change a group's size: when it would, and has written a checkpoint for it."""
        if self._asked is None:
            decision = super().make_decision_for_running_worker_group(worker_group_state, worker_group_status)
            if isinstance(decision, ResizeDecision) and (answers := self.ask()) is not None:
                self._asked = answers, time.monotonic() + self._patience
                return NoopDecision()
            return decision
        before, deadline = self._asked
        if self.answers(before) == before and time.monotonic() < deadline:
            return NoopDecision()
        self._asked, self._latest_monitor_time = None, float("-inf")  # what there is room for now counts
        return super().make_decision_for_running_worker_group(worker_group_state, worker_group_status)

    def ask(self) -> int | None:
        """Asks for a checkpoint; how many were answered before, ``None`` when nobody can be asked."""
        try:
            answers = int(ray.get(self._mailbox.answers.remote()))
            ray.get(self._mailbox.ask.remote())
        except RayError as error:
            logger.warning("resizing without a checkpoint: %s", error)
            return None
        return answers

    def answers(self, before: int) -> int:
        """How many were answered by now; ``before`` when nobody can be asked."""
        try:
            return int(ray.get(self._mailbox.answers.remote()))
        except RayError:
            return before


class Trainer(TorchTrainer):
    """Ray Train's trainer with four of its habits changed.

    No placement-group cleaner where it cannot work: it asks the dashboard's state API every second whether
    the controller lives, and a local cluster of ours has no dashboard and ends with the driver anyway.
    Ctrl-C stays a ``KeyboardInterrupt``, so that the run is recorded as killed. An elastic group has only
    sizes that the global batch divides by. Failures are counted by a policy of ours.
    """

    sizes: tuple[int, ...] = ()
    #: For workers of an elastic group; how long a checkpoint is awaited before another size.
    mailbox: Any = None
    patience = 0.0
    #: Makes the failure policy from Ray Train's configuration of it.
    make_policy: Callable[[Any], FailurePolicy] = FailurePolicy
    #: Checkpoints before their time that the workers have told of.
    answers = 0
    _controller: Any = None
    _aborted = False

    def abort(self) -> None:
        """Ends controller and workers, and frees what they held: a killed controller would keep it."""
        self._aborted = True
        if self._controller is None:
            return
        with suppress(RayActorError, GetTimeoutError):  # it exits inside the call
            ray.get(self._controller.abort.remote(), timeout=_ABORT_SECONDS)
        ray.kill(self._controller)

    def _register_sigint_handler(self, controller: Any) -> None:
        self._controller = controller
        if self._aborted:
            self.abort()

    def _initialize_and_run_controller(self, **arguments: Any) -> Any:
        if self.scaling_config.elasticity_enabled:
            arguments["scaling_policy"] = WholeBatches(
                self.scaling_config, self.sizes, self.mailbox, self.patience
            )
        arguments["failure_policy"] = self.make_policy(self.run_config.failure_config)
        return super()._initialize_and_run_controller(**arguments)

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()
        if os.environ.get("RAY_ADDRESS"):
            return callbacks
        return [c for c in callbacks if not isinstance(c, PlacementGroupCleanerCallback)]
