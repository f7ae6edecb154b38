"""How many workers an elastic run has: whole batches alone, and no step is done twice when it grows."""

import logging
import time
from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import RayError

from pipelines.train.driver.ray_train_private import ElasticPolicy, NoopDecision, ResizeDecision

logger = logging.getLogger(__name__)


class WholeBatches(ElasticPolicy):
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
        #: Number of the wish, and until when an answer is awaited.
        self._asked: tuple[int, float] | None = None

    def fitting(self, room: int) -> int:
        """The largest of the sizes."""
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
            if isinstance(decision, ResizeDecision) and (wish := self._ask()) is not None:
                self._asked = wish, time.monotonic() + self._patience
                return NoopDecision()
            return decision
        wish, deadline = self._asked
        if not self._is_answered(wish) and time.monotonic() < deadline:
            return NoopDecision()
        self._asked = None
        self.look_again()  # what there is room for now counts
        return super().make_decision_for_running_worker_group(worker_group_state, worker_group_status)

    def _ask(self) -> int | None:
        """Asks for a checkpoint; the wish's number, ``None`` when nobody can be asked."""
        try:
            return int(ray.get(self._mailbox.ask.remote()))
        except RayError as error:
            logger.warning("resizing without a checkpoint: %s", error)
            return None

    def _is_answered(self, wish: int) -> bool:
        try:
            return bool(ray.get(self._mailbox.answered.remote()) >= wish)
        except RayError:
            return False
