"""Asks Ray's autoscaler whether a cluster can grow to what a job needs, before the job waits for it."""

import logging
import time

import ray
from ray.autoscaler.v2.sdk import request_cluster_resources

from pipelines.cluster_view.ray_private import cluster_status

logger = logging.getLogger(__name__)

_ANSWER_SECONDS = 30.0
_LOOK_SECONDS = 0.5


def has_autoscaler() -> bool:
    """Whether something makes the connected cluster grow and shrink."""
    state = cluster_status(ray.get_runtime_context().gcs_address).autoscaling_state
    return bool(state.autoscaler_state_version)


def autoscaler_could(bundles: list[dict[str, float]]) -> bool | None:
    """Whether the node groups can hold all bundles at once, each on one node.

    The autoscaler is asked for them and says within seconds whether it has groups for them; the wish is then
    taken back (Ray Train and Ray Data ask for what they need themselves), but the nodes that it has ordered
    by then come. Ray's own ``max resources of the cluster configuration`` is not set by the open-source
    autoscaler, so it cannot be read instead.

    Returns:
        ``None`` when there is no autoscaler, or it does not answer within half a minute.
    """
    address = ray.get_runtime_context().gcs_address
    if not cluster_status(address).autoscaling_state.autoscaler_state_version:
        return None
    request_cluster_resources(address, [{"resources": bundle} for bundle in bundles])
    try:
        asked = cluster_status(address).cluster_resource_state.cluster_resource_state_version
        deadline = time.monotonic() + _ANSWER_SECONDS
        while time.monotonic() < deadline:
            state = cluster_status(address).autoscaling_state
            if state.last_seen_cluster_resource_state_version >= asked:
                return not state.infeasible_cluster_resource_constraints
            time.sleep(_LOOK_SECONDS)
    finally:
        request_cluster_resources(address, [])
    logger.warning("the autoscaler did not answer within %.0f s", _ANSWER_SECONDS)
    return None


def call_for_cpus(wanted: int) -> None:
    """Asks the autoscaler, where there is one, for all CPUs of a job at once.

    Ray Data asks for twice what it has, ten seconds after the last nodes came: from none to sixty-four of a
    cloud's nodes takes it seven of their starts.

    Args:
        wanted: CPUs that the cluster should have altogether.
    """
    there = ray.cluster_resources().get("CPU", 0.0)
    if there < wanted and autoscaler_could([{"CPU": 1.0}] * wanted) is False:
        logger.warning(
            "%d tasks at a time are asked for (workers), and the cluster's node groups cannot hold as many: "
            "it grows step by step, to what its max_workers allow",
            wanted,
        )
