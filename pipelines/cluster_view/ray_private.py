"""What is asked of Ray beside its public interface; nothing else of ours touches these.

``tests/unit/train/test_private_contracts.py`` tells by name what a new version of Ray has changed.
Ray Train's insides, which take a second to import, stand in ``pipelines/train/driver/ray_train_private.py``.
"""

from typing import Final

import ray
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply

#: Says at each start that token authentication is on, which it should be.
AUTHENTICATION_LOGGER: Final = "ray._private.authentication.authentication_token_setup"


def cluster_status(address: str) -> GetClusterStatusReply:
    """What the control store knows of resources and of the autoscaler.

    Args:
        address: of the control store.
    """
    reply = GetClusterStatusReply()
    reply.ParseFromString(GcsClient(address).get_cluster_status(timeout_s=10))
    return reply


def leaving_nodes() -> dict[str, int]:
    """Nodes that were announced to go and still are there, each with its deadline in milliseconds, or 0."""
    try:
        return ray._private.state.state.get_draining_nodes() or {}
    except Exception:  # the control store may be as busy as all else when a node is lost
        return {}


def classes_of_placed_actors() -> list[str]:
    """Names of the classes of this job's actors that have a process: those that run, and those that start."""
    job = ray.JobID.from_hex(ray.get_runtime_context().get_job_id())
    found = ray._private.state.actors(job_id=job)
    # One that waits for a place is PENDING_CREATION too, and has no process.
    placed = [e for e in found.values() if e["State"] in ("PENDING_CREATION", "ALIVE") and e["Pid"]]
    return [str(entry["ActorClassName"]) for entry in placed]


def keep_keys_out_of_trials() -> None:
    """Ray Tune gives trials the driver's variables of AWS in their runtime environment, without being asked.

    That is no place for a key: the dashboard shows it, and each node's agent writes it to its log. Workers
    have the keys of their node, or those that their job was submitted with.
    """
    from ray.tune.execution import class_cache  # a second, for who has trials

    others = {name for name in class_cache.ENV_VARS_TO_PROPAGATE if not name.startswith("AWS_")}
    class_cache.ENV_VARS_TO_PROPAGATE = others
