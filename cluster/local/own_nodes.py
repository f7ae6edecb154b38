"""Nodes that Ray's autoscaler starts and stops on this machine, each a raylet of its own.

Ray loads the provider by its name in the process of the autoscaler, on the head.
"""

import os
from pathlib import Path
from typing import Any

import psutil
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID, FakeMultiNodeProvider
from ray.autoscaler.tags import (
    NODE_KIND_WORKER,
    STATUS_UP_TO_DATE,
    TAG_RAY_NODE_KIND,
    TAG_RAY_NODE_NAME,
    TAG_RAY_NODE_STATUS,
    TAG_RAY_USER_NODE_TYPE,
)

from cluster.local.processes import LOOPBACK
from cluster.local.ray_nodes import NodeSize, start_worker

_HEAD_TYPE = "ray.head.default"
_GRACE_SECONDS = 15.0


def head_environment() -> dict[str, str]:
    """What the head of a cluster that grows on this machine needs in its environment."""
    return {
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    }


def autoscaling_config(
    groups: dict[str, Any], limit: int, idle_minutes: float, gcs: str, temp: Path, memory: int
) -> dict[str, Any]:
    """The configuration that ``ray start --autoscaling-config`` takes.

    Args:
        groups: ``available_node_types`` of a cluster file, the head left out.
        limit: nodes at most, the head left out.
        idle_minutes: after which a node without work goes.
        gcs: ``host:port`` of the control store.
        temp: for session folders and logs.
        memory: object store of a node in bytes.
    """
    kept = ("resources", "labels", "min_workers", "max_workers", "priority")
    types = {
        name: {"node_config": {}, **{k: g[k] for k in kept if k in g}, "resources": dict(g["resources"])}
        for name, g in groups.items()
    }
    commands = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
    return {
        "cluster_name": "local",
        "max_workers": limit,
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": idle_minutes,
        "provider": {
            "type": "external",
            "module": f"{__name__}.{LocalNodeProvider.__name__}",
            "gcs_address": gcs,
            "head_node_id": FAKE_HEAD_NODE_ID,
            "launch_multiple": True,
            "temp": str(temp),
            "memory": memory,
        },
        "auth": {},
        "head_node_type": _HEAD_TYPE,
        "available_node_types": {
            _HEAD_TYPE: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            **types,
        },
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
        **{f"{name}_commands": [] for name in commands},
    }


class LocalNodeProvider(FakeMultiNodeProvider):  # type: ignore[misc]
    """Ray's provider for one machine, with nodes that are processes started as any worker is."""

    def _create_node_with_resources_and_labels(
        self, node_config: Any, tags: dict[str, str], count: int, resources: dict[str, Any], labels: Any
    ) -> None:
        with self.lock:
            name = self._next_hex_node_id()
            rest = dict(resources)
            cpus, gpus = int(rest.pop("CPU", 0)), int(rest.pop("GPU", 0))
            rest.pop("memory", None), rest.pop("object_store_memory", None)
            size = NodeSize(cpus, self.provider_config["memory"], rest, gpus, dict(labels or {}))
            environment = {
                **{key: value for key, value in os.environ.items() if key != "RAY_FAKE_CLUSTER"},
                "RAY_OVERRIDE_NODE_ID_FOR_TESTING": name,
                "RAY_CLOUD_INSTANCE_ID": name,
                "RAY_NODE_TYPE_NAME": tags[TAG_RAY_USER_NODE_TYPE],
            }
            temp = Path(self.provider_config["temp"])
            pid = start_worker(self._gcs_address, LOOPBACK, temp, self._next_node_id, size, environment)
            own = {
                TAG_RAY_NODE_KIND: NODE_KIND_WORKER,
                TAG_RAY_NODE_NAME: name,
                TAG_RAY_NODE_STATUS: STATUS_UP_TO_DATE,
            }
            self._nodes[name] = {"tags": {**own, **tags}, "pid": pid}

    def _terminate_node(self, node: dict[str, Any]) -> None:
        try:
            starter = psutil.Process(node["pid"])
            processes = [starter, *starter.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        starter.terminate()  # it takes its raylet and agents with it
        _, alive = psutil.wait_procs(processes, timeout=_GRACE_SECONDS)
        for process in alive:
            process.kill()
