"""Memory, time, storage and money of a run on the groups of a cluster file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pipelines.config import Config
from pipelines.models.device import peak_flops
from pipelines.models.sizes import Sizes, measure_model
from pipelines.plan.plan import Plan
from pipelines.planner.prices import Prices, read_prices
from pipelines.storage.yaml_text import load_yaml
from pipelines.store.index import StoreIndex
from pipelines.train.engine.memory import (
    GIB,
    USABLE,
    largest_micro_batch,
    memory_rows,
    needed,
    what_fits,
    with_micro_batch,
)
from unigeoseg.errors import UserError

#: What a run needs beside the steps on its GPU nodes, and ``cost`` does not hold.
LEFT_OUT = (
    "disks",
    "what the store, checkpoints and MLflow's database occupy",
    "traffic out of the region",
    "time for starting nodes, evaluation, checkpoints and restarts",
)


@dataclass(frozen=True)
class Work:
    """What a run computes: FLOPs of forward and backward pass without recomputation, as MFU counts them.

    Attributes:
        images: that go through the encoder.
        instructions: that go through the language model and the mask decoder.
        of_image: FLOPs of one image.
        of_instruction: FLOPs of one instruction.
    """

    images: int
    instructions: float
    of_image: int
    of_instruction: int

    @property
    def flops(self) -> float:
        """Of the whole run."""
        return self.images * self.of_image + self.instructions * self.of_instruction


def estimate(
    config: Config, plan: Plan, index: StoreIndex, cluster: Path, mfu: float, price_file: Path | None = None
) -> dict[str, Any]:
    """What the run needs on each GPU group, and the cheapest that fits.

    Args:
        config: the job.
        plan: its plan.
        index: its store.
        cluster: a file for ``ray up``.
        mfu: share of the GPUs' peak that training is assumed to reach.
        price_file: a price table in place of ours.

    Returns:
        ``sizes``, ``memory`` (rows), ``groups`` (``fits``, ``hours``, ``cost``, ``storage`` ...),
        ``cheapest``, ``checkpoints``, ``prices_of`` and ``prices_source``, ``assumptions``, ``left_out``
        (what ``cost`` does not hold), ``warnings``.

    Raises:
        UserError: the file cannot be read or has no groups.
    """
    groups, head = read_groups(cluster)
    prices = read_prices(price_file)
    sizes, of_image, of_instruction = measure_model(config)
    work = Work(plan.steps * plan.batch_size, plan.instructions(), of_image, of_instruction)
    world = config.scale.workers
    found = [_group(name, group, config, work, index, sizes, mfu, prices) for name, group in groups.items()]
    wanted = config.scale.gpus_per_worker > 0
    gpu = [row for row in found if row["gpus"] or not wanted]
    fitting = sorted(
        (row for row in gpu if row["fits"] and row["cost"] is not None), key=lambda row: row["cost"]
    )
    per_node = max((row["gpus"] for row in gpu), default=0) or world
    rows = memory_rows(config, sizes, world, min(world, per_node))
    return {
        "sizes": sizes.plain(),
        "memory": [vars(row) for row in rows],
        "groups": gpu,
        "cheapest": fitting[0]["name"] if fitting else None,
        "checkpoints": checkpoints(config, sizes, plan.steps),
        "prices_of": prices.date,
        "prices_source": prices.source,
        "assumptions": {
            "mfu": mfu,
            "spot_share": prices.spot,
            "usable_memory": USABLE,
            "images": work.images,
            "instructions": round(work.instructions),
            "flops_of_image": work.of_image,
            "flops_of_instruction": work.of_instruction,
        },
        "left_out": [*_beside(head, found if wanted else [], prices), *LEFT_OUT],
        "warnings": _warnings(config, gpu, fitting, mfu),
    }


def read_groups(path: Path) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Node groups of a cluster file: those of workers by name, and the head's.

    Raises:
        UserError: it cannot be read, or is no cluster file.
    """
    try:
        content = load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"--cluster {path}: cannot be read: {' '.join(str(error).split())}") from error
    groups = content.get("available_node_types") if isinstance(content, dict) else None
    if not isinstance(groups, dict):
        raise UserError(
            f"--cluster {path}: no available_node_types; give a file for `ray up` such as ray_cluster.yaml"
        )
    head = content.get("head_node_type")
    return {name: group for name, group in groups.items() if name != head}, groups.get(head, {})


def checkpoints(config: Config, sizes: Sizes, steps: int) -> dict[str, Any]:
    """Bytes of one checkpoint (weights, float32 master weights, Adam's moments), how many, and kept."""
    precision = 2 if config.train.precision == "bf16" else 4
    master = 12 if config.train.precision == "bf16" else 8
    each = sizes.total * precision + sizes.trained * master
    count = -(-steps // config.checkpoint.every)
    return {
        "bytes": each,
        "count": count,
        "written": each * count,
        "kept": each * min(count, config.checkpoint.keep),
    }


def _group(
    name: str, group: dict[str, Any], config: Config, work: Work, index: StoreIndex,
    sizes: Sizes, mfu: float, prices: Prices,
) -> dict[str, Any]:  # fmt: skip
    node, machine = group.get("node_config", {}), _machine(group)
    facts = prices.machines.get(machine) if machine else None
    spot = "InstanceMarketOptions" in node or node.get("scheduling", {}).get("provisioningModel") == "SPOT"
    gpus = int(group.get("resources", {}).get("GPU", 0))
    world = config.scale.workers
    per_node = gpus or max(1, int(group["resources"].get("CPU", 1) // config.scale.cpus_per_worker))
    nodes = -(-world // per_node)
    usable = (facts.gpu_gib if facts else 0) * GIB * USABLE
    if config.train.micro_batch == "auto" and usable:  # as the workers will choose it
        size = largest_micro_batch(config, sizes, world, min(world, per_node), usable)
        config = with_micro_batch(config, size or 1, world)
    row = needed(config, sizes, world, min(world, per_node))
    reasons = []
    if nodes > group.get("max_workers", 0):
        reasons.append(f"{nodes} nodes needed, max_workers is {group.get('max_workers', 0)}")
    if gpus and usable and row.device > usable:
        fits = what_fits(config, sizes, world, min(world, per_node), usable)
        reasons.append(
            f"{row.device / GIB:.1f} GiB needed on a GPU, {usable / GIB:.1f} usable" + (fits and f" ({fits})")
        )
    if group["resources"].get("CPU", 0) < config.scale.cpus_per_worker * min(world, per_node):
        reasons.append("too few CPUs for its workers")
    result: dict[str, Any] = {
        "name": name, "machine": machine, "spot": spot, "gpus": gpus, "nodes": nodes, "fits": not reasons,
        "reasons": reasons, "micro_batch": config.micro_batch,
        "device_bytes": row.device, "host_bytes": row.host, "hours": None, "cost": None,
    }  # fmt: skip
    peak = peak_flops(facts.gpu) if facts and facts.gpu else None
    if facts is None or peak is None:
        return result
    images = work.images
    seconds = work.flops / (world * peak * mfu)
    hours = seconds / 3600
    money = hours * nodes * facts.hour * (prices.spot if spot else 1.0)
    image_bytes = float(np.mean(index.table["nbytes"].to_numpy()))
    store = prices.storage
    result |= {
        "hours": hours,
        "samples_per_second": work.instructions / seconds,
        "storage": {
            "bytes_per_second": images * image_bytes / seconds,
            "requests": images,
            "bytes": images * image_bytes,
            "request_cost": images / 1000 * store.get_per_1000,
            "egress_cost_other_region": images * image_bytes / 1e9 * store.egress_gb_region,
        },
        "cost": money + images / 1000 * store.get_per_1000,
    }
    return result


def _machine(group: dict[str, Any]) -> str | None:
    node = group.get("node_config", {})
    return node.get("InstanceType") or node.get("machineType")


def _beside(head: dict[str, Any], groups: list[dict[str, Any]], prices: Prices) -> list[str]:
    """The nodes that run beside the training group, which the cost leaves out."""

    def told(machine: str | None) -> str:
        facts = prices.machines.get(machine or "")
        return f"{machine}, {facts.hour:.2f} an hour" if facts else machine or "no price known"

    found = [f"the head ({told(_machine(head))})"]
    return found + [
        f"nodes of {row['name']} ({told(row['machine'])} each)" for row in groups if not row["gpus"]
    ]


def _warnings(config: Config, groups: list[dict[str, Any]], fitting: list[Any], mfu: float) -> list[str]:
    held = config.micro_batch
    found = [
        f"time and cost rest on an assumed MFU of {mfu:.0%}, and a worker that holds {held} at once reaches "
        f"less than one that holds 32; measure it with `unigeoseg bench step --device cuda --batch {held}`"
    ]
    if config.train.precision != "bf16":
        found.append(
            f"hours and cost take the GPUs' bfloat16 peak, and train.precision={config.train.precision} "
            "reaches less: they are too low"
        )
    if not fitting:
        found.append("no group with a known price fits; see reasons")
    found += [
        f"{row['name']}: {row['machine']} has no price or GPU in the table"
        for row in groups
        if row["hours"] is None
    ]
    if config.checkpoint.max_failures == 0 and any(row["spot"] for row in groups):
        found.append("spot nodes are taken away, and checkpoint.max_failures=0 ends the run then")
    return found
