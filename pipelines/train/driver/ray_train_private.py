"""What is changed of Ray Train by its insides; nothing else of ours touches these.

``tests/unit/train/test_private_contracts.py`` tells by name what a new version of Ray has changed.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.callback import ControllerCallback
from ray.train.v2._internal.execution.failure_handling import DefaultFailurePolicy
from ray.train.v2._internal.execution.scaling_policy import NoopDecision, ResizeDecision
from ray.train.v2._internal.execution.scaling_policy.elastic import ElasticScalingPolicy
from ray.train.v2.api.exceptions import WorkerGroupError

__all__ = [
    "ControllerCallback",
    "ElasticPolicy",
    "FailurePolicy",
    "NoopDecision",
    "ResizeDecision",
    "Trainer",
    "WorkerGroupError",
]

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


class ElasticPolicy(ElasticScalingPolicy):
    """Ray Train's policy on the size of an elastic group, with a say in which sizes there are."""

    def fitting(self, room: int) -> int:
        """The size of a group where there is room for so many workers."""
        return room

    def look_again(self) -> None:
        """Lets the next decision be made on what there is room for then, however short ago the last was."""
        self._latest_monitor_time = float("-inf")

    def _count_possible_workers(self, reserved_resources: Any) -> int:
        return self.fitting(super()._count_possible_workers(reserved_resources))


class Trainer(TorchTrainer):
    """Ray Train's trainer with four of its habits changed.

    No placement-group cleaner where it cannot work: it asks the dashboard's state API every second whether
    the controller lives, and a local cluster of ours has no dashboard and ends with the driver anyway.
    Ctrl-C stays a ``KeyboardInterrupt``, so that the run is recorded as killed. Sizes of an elastic
    group and failures are the business of policies of ours.
    """

    #: Make the policies from Ray Train's configurations of them.
    make_scaling: Callable[[Any], ElasticPolicy] = ElasticPolicy
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
            arguments["scaling_policy"] = self.make_scaling(self.scaling_config)
        arguments["failure_policy"] = self.make_policy(self.run_config.failure_config)
        return super()._initialize_and_run_controller(**arguments)

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()
        if os.environ.get("RAY_ADDRESS"):
            return callbacks
        return [c for c in callbacks if not isinstance(c, PlacementGroupCleanerCallback)]
