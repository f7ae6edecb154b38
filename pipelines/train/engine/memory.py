"""Memory of a training worker under each ZeRO stage, without a GPU at hand.

Per trained parameter (Rajbhandari et al. 2020, ZeRO, section 3; what DeepSpeed 0.19 does besides, read in its
code and measured): the weight; its gradient; from stage 1 on a float32 master, in float32 training too; two
float32 moments; while the optimizer works a float32 gradient, of bfloat16 gradients another copy, and of Muon
some matrices. Where bfloat16 gradients of several micro-batches are summed in float32, that sum takes the
gradient's place. Stage 1 divides master and moments among the workers, stage 2 the gradients, stage 3 the
weights. Frozen weights are held in the training precision. Under stage 3 DeepSpeed keeps up to a thousand
million parameters gathered, and a place for its share of the gradients.

A step has two peaks, and the higher one counts: somewhere in the forward and backward pass, where activations
go while gradients come, and in the update. Activations are counted module by module on the model itself
(:mod:`pipelines.models.sizes`). ``unigeoseg bench memory`` holds the whole against real steps.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.config import Config
from pipelines.config.batch import positions_per_worker
from pipelines.models.sizes import ModuleSizes, Sizes
from pipelines.train.engine.ahead import encodes_ahead
from pipelines.train.engine.deepspeed_config import deepspeed_config, sums_apart

STAGES = (0, 1, 2, 3)
#: Of a device's memory, what CUDA, fragmentation and buffers leave to a model.
USABLE = 0.9
GIB = 2**30
#: DeepSpeed's ``stage3_max_live_parameters``.
_LIVE_PARAMETERS = 10**9
#: DeepSpeed's ``allreduce_bucket_size``, which stage 0 flattens gradients in.
_ALLREDUCE = 5 * 10**8


@dataclass(frozen=True)
class States:
    """Bytes of one worker beside activations.

    Attributes:
        kept: from step to step: weights, masters, moments.
        passing: in forward and backward pass besides: cast weights, reduction buckets.
        gradient: of one trained parameter, as the backward pass leaves it behind.
        limit: of all of these together.
        reduction: when the last of them are summed over the workers, the activations gone.
        update: in the update beside what is kept, gradients with it.
        host: in host memory.
    """

    kept: int
    passing: int
    gradient: float
    update: int
    host: int
    limit: float = math.inf
    reduction: int = 0


@dataclass(frozen=True)
class MemoryRow:
    """Bytes of one worker: ``device`` is its peak, on the GPU or, without one, in main memory."""

    stage: int
    offload: bool
    checkpointing: bool
    states: int
    activations: int
    device: int
    host: int


def memory_rows(config: Config, sizes: Sizes, world: int, per_node: int) -> list[MemoryRow]:
    """Every stage that the optimizer takes, with and without optimizer offload and activation checkpointing.

    Muon takes stages 0 to 2 without offload.

    Args:
        config: for precision and the samples held at once.
        sizes: of the model.
        world: workers.
        per_node: workers on one machine.
    """
    images = config.micro_batch
    samples = images * config.data.instructions_per_image
    rows = []
    gpu = config.scale.gpus_per_worker > 0
    whole = config.train.optimizer == "muon"
    for stage in stages_of(config):
        for offload in (False, True) if stage and not whole else (False,):
            states = model_states(config, sizes, stage, offload, world, per_node)
            for on, modules in sizes.modules.items():
                walked = highest(modules, images, samples, 0.0)
                walk = highest(modules, images, samples, states.gradient, states.limit)
                if encodes_ahead(config, stage, gpu):
                    walk += modules[0].peak * images  # the encoder, beside whatever is highest
                passes = states.passing + max(walk, states.reduction)
                device = states.kept + max(passes, states.update)
                rows.append(MemoryRow(stage, offload, on, states.kept, walked, device, states.host))
    return rows


def stages_of(config: Config) -> tuple[int, ...]:
    """Stages of ZeRO that the optimizer takes: Muon turns whole matrices, which stage 3 cuts."""
    return STAGES[:3] if config.train.optimizer == "muon" else STAGES


def needed(config: Config, sizes: Sizes, world: int, per_node: int) -> MemoryRow:
    """The row of the configuration's own stage, offload and checkpointing."""
    engine, stage = config.engine, config.engine.zero_stage
    wanted = (stage, engine.offload_optimizer and stage > 0, config.train.activation_checkpointing)
    rows = memory_rows(config, sizes, world, per_node)
    return next(row for row in rows if (row.stage, row.offload, row.checkpointing) == wanted)


def largest_micro_batch(config: Config, sizes: Sizes, world: int, per_node: int, room: float) -> int | None:
    """Most positions of a worker that stay within ``room`` bytes; ``None`` where not even one does."""
    own = positions_per_worker(config.train.global_batch, world)
    for micro in (n for n in range(own, 0, -1) if own % n == 0):
        if needed(with_micro_batch(config, micro, world), sizes, world, per_node).device <= room:
            return micro
    return None


def with_micro_batch(config: Config, size: int, world: int) -> Config:
    """The configuration of ``world`` workers, perhaps fewer than planned, that hold ``size`` at once."""
    train = config.train.model_copy(update={"micro_batch": size})
    scale = config.scale.model_copy(update={"workers": world, "min_workers": None})
    return config.model_copy(update={"train": train, "scale": scale})


def what_fits(config: Config, sizes: Sizes, world: int, per_node: int, room: float) -> str:
    """Settings under which a worker stays within ``room`` bytes, in words; empty where none of these do.

    Smaller micro-batches first, which only cost time; then the other rows with the configuration's own.
    """
    held = config.micro_batch
    for micro in (n for n in range(held - 1, 0, -1) if held % n == 0):
        row = needed(with_micro_batch(config, micro, world), sizes, world, per_node)
        if row.device <= room:
            return f"train.micro_batch={micro} would need {row.device / 2**30:.1f}"
    fitting = [row for row in memory_rows(config, sizes, world, per_node) if row.device <= room]
    if not fitting:
        return ""
    row = min(fitting, key=lambda r: (r.offload, r.checkpointing, r.stage))
    settings = [
        f"engine.zero_stage={row.stage}",
        *(["engine.offload_optimizer=true"] if row.offload else []),
        f"train.activation_checkpointing={str(row.checkpointing).lower()}",
    ]
    return f"{' '.join(settings)} would need {row.device / 2**30:.1f}"


def highest(
    modules: Sequence[ModuleSizes],
    images: int,
    samples: int,
    gradient: float,
    limit: float = math.inf,
) -> int:
    """The most bytes that activations and gradients of weights hold together in a step.

    Args:
        modules: in the order of the forward pass.
        images: in the micro-batch.
        samples: instructions in it.
        gradient: bytes that a trained parameter's gradient leaves behind.
        limit: bytes of gradients at the most, beyond which they go.
    """
    counts = [images if module.of_image else samples for module in modules]
    held, most = sum(m.kept * n for m, n in zip(modules, counts, strict=True)), 0.0
    gradients = 0.0
    for module, count in zip(reversed(modules), reversed(counts), strict=True):
        held -= module.kept * count
        before, gradients = gradients, min(limit, gradients + module.trained * gradient)
        most = max(most, held + before + module.peak * count, held + gradients)
    return round(most)


def model_states(
    config: Config, sizes: Sizes, stage: int, offload: bool, world: int, per_node: int
) -> States:
    """What a worker holds beside activations; host memory by DeepSpeed's own estimators."""
    half, gpu = config.train.precision == "bf16", config.scale.gpus_per_worker > 0
    weight = 2 if half and stage else 4
    trained, frozen = sizes.trained, sizes.total - sizes.trained
    whole = weight * (trained + frozen)
    share = trained / world
    # Muon keeps one moment of the matrices, and turns those of a shape in copies; the fused AdamW has none.
    muon = config.train.optimizer == "muon"
    moments = 8 * trained - (4 * sizes.matrices if muon else 0)
    own = 12 * sizes.largest if muon else 0
    flattened = 4 * share if half else 0  # DeepSpeed's, on the way to the float32 gradient (measured)
    if stage == 0:
        cast = 2 * trained if half else 0  # autocast keeps the weights it has cast until the pass ends
        flat = 4 * min(trained, _ALLREDUCE)
        return States(whole + moments, cast, 4.0, 4 * trained + max(flat, own), 0)
    bucket = _bucket(config, stage, world, trained, gpu) * weight
    gradient = weight / (world if stage > 1 else 1)
    single = 4 * share if half else 0.0  # the float32 gradient; in float32 it is the gradient itself
    summed = weight
    if sums_apart(config, stage, offload) and config.train.global_batch > world * config.micro_batch:
        summed, gradient, single = 4, 4 / world, 0.0  # the sum is the float32 gradient
    # A bucket that is reduced in float32 is copied for it.
    wide = 2 * bucket if half and config.engine.reduction_dtype == "fp32" else 0
    states, update = 4 * share + moments / world, gradient * trained + single + own + flattened
    kept, passing, limit, reduction = float(whole), float(bucket + wide), math.inf, 0.0
    if stage == 3:
        # Gathered weights stay; gradients wait whole in a bucket, and their shares have a place of their own.
        kept = whole / world + weight * min(trained + frozen, _LIVE_PARAMETERS) + summed * share
        if (node := config.engine.hpz_partition_size) > 1:
            kept += whole / node  # the second copy
        passing, gradient, limit = float(wide), float(weight), float(bucket)
        update = 4 * share + flattened
        if world > 1:  # beside them a flat copy (gloo makes another one) and the share that comes back
            reduction = min(bucket, weight * trained) * (2 if gpu else 3) + weight * share
    host = 0
    if offload:
        host, states, update = _host(sizes, stage, world, per_node), 0.0, 0.0
        gradient = gradient if stage == 3 else 0.0
    return States(
        round(kept + states), round(passing), gradient, round(update), host, limit, round(reduction)
    )


def _bucket(config: Config, stage: int, world: int, trained: int, gpu: bool) -> int:
    """Elements that wait for their reduction: on a CPU no more than there are."""
    values = config.plain()
    values["engine"] |= {"zero_stage": stage, "hpz_partition_size": 1}
    zero = deepspeed_config(Config.model_validate(values), world, trained)["zero_optimization"]
    size = int(zero.get("reduce_bucket_size", _ALLREDUCE))
    return size * (2 if zero.get("overlap_comm") else 1) if gpu else min(size, trained)


def _host(sizes: Sizes, stage: int, world: int, per_node: int) -> int:
    # Their modules print and need a device; the two functions are arithmetic alone.
    from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs
    from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs

    nodes = max(1, world // per_node)
    if stage < 3:
        return int(estimate_zero2_model_states_mem_needs(sizes.trained, per_node, nodes, True)[0])
    return int(
        estimate_zero3_model_states_mem_needs(
            sizes.trained, sizes.largest, per_node, nodes, True, cpu_offload_params=False
        )[0]
    )
