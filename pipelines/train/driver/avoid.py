"""Keeps workers off machines that were found unfit."""

import logging
from typing import Any

import ray
from ray.exceptions import RayError
from ray.train import UserCallback

from pipelines.train.driver.ray_train_private import ControllerCallback

logger = logging.getLogger(__name__)
#: The label that Ray gives each node.
NODE = "ray.io/node-id"


class AvoidNodes(ControllerCallback, UserCallback):
    """Ray Train asks it where a group of workers may be placed.

    Args:
        mailbox: the actor that workers told of unfit nodes.
    """

    def __init__(self, mailbox: Any) -> None:
        self._mailbox = mailbox

    def on_controller_start_worker_group(
        self, *, scaling_config: Any, num_workers: int
    ) -> dict[str, str] | None:
        """A selector that leaves unfit nodes out; ``None`` when there are none."""
        try:
            unfit: dict[str, str] = ray.get(self._mailbox.unfit_nodes.remote())
        except RayError:  # the driver is gone, and Ray ends the run
            return None
        return {NODE: f"!in({','.join(sorted(unfit))})"} if unfit else None
