"""The DeepSpeed configuration of a job, as a pure function of ours."""

from typing import Any

from pipelines.config import Config
from pipelines.config.batch import micro_batches


def accumulation_steps(config: Config, world: int) -> int:
    """Micro-batches a worker runs in one optimizer step.

    Raises:
        UserError: the global batch cannot be split over ``world`` workers in whole micro-batches.
    """
    train = config.train
    return micro_batches(train.global_batch, world, train.given_micro_batch, config.scale.workers)


#: Elements of gradients that wait for one reduction (DeepSpeed's own 5e8 are 2 GB in float32). On a CPU the
#: buffer stays below the 64 MiB that glibc gives a thread in one piece, so that it is not asked of the
#: system, page by page, in each backward pass (see ``allocator``).
_BUCKET_GPU, _BUCKET_CPU = 200_000_000, 15_000_000


def deepspeed_config(config: Config, world: int, trained: int | None = None) -> dict[str, Any]:
    """What ``deepspeed.initialize`` gets, for ``world`` workers.

    The learning rate is not in it: the engine sets it from the step number alone
    (``schedule.learning_rate``), so that nothing has to be restored.

    Args:
        config: the job's.
        world: workers.
        trained: elements of the model's trained parameters, where they are known: no buffer for gradients is
            made larger.
    """
    train, stage = config.train, config.engine.zero_stage
    accumulation = accumulation_steps(config, world)
    content: dict[str, Any] = {
        "train_batch_size": train.global_batch,
        "train_micro_batch_size_per_gpu": train.global_batch // world // accumulation,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": train.grad_clip,
        "bf16": {"enabled": train.precision == "bf16" and stage > 0},
        "zero_optimization": _zero(config, trained),
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        # Reports of DeepSpeed's own; the loop writes ours.
        "steps_per_print": None,
        "wall_clock_breakdown": False,
    }
    if train.precision == "bf16" and stage == 0:
        # Without ZeRO there are no float32 master weights: keep the weights in float32, compute in bfloat16.
        content["torch_autocast"] = {"enabled": True, "dtype": "bfloat16"}
    elif train.precision == "bf16":
        content["communication_data_type"] = config.engine.reduction_dtype
        if accumulation > 1 and sums_apart(config, stage, config.engine.offload_optimizer):
            content["data_types"] = {"grad_accum_dtype": "fp32"}
    return content


def sums_apart(config: Config, stage: int, offload: bool) -> bool:
    """Whether a bfloat16 run sums its micro-batches' gradients in float32, in a place of their own.

    DeepSpeed's stage 1 would put another optimizer in ours' place for it; offload sums on the host.
    """
    asked = config.train.precision == "bf16" and config.engine.accumulation_dtype == "fp32"
    return asked and stage in (2, 3) and not offload


def _zero(config: Config, trained: int | None) -> dict[str, Any]:
    stage = config.engine.zero_stage
    zero: dict[str, Any] = {"stage": stage}
    if stage in (1, 2):
        on_gpu = config.scale.gpus_per_worker > 0
        bucket = _BUCKET_GPU if on_gpu else _BUCKET_CPU
        zero |= {
            "reduce_bucket_size": min(bucket, trained or bucket),
            "allgather_bucket_size": bucket,
            "overlap_comm": on_gpu,
            "contiguous_gradients": True,
            "reduce_scatter": True,
            "round_robin_gradients": False,
        }
    if stage == 3:
        zero |= {"overlap_comm": config.scale.gpus_per_worker > 0, "contiguous_gradients": True}
        zero["zero_hpz_partition_size"] = config.engine.hpz_partition_size
    if config.engine.offload_optimizer and stage:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": config.scale.gpus_per_worker > 0}
    return zero
