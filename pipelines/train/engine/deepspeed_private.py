"""What is done with DeepSpeed beside its public interface; nothing else of ours touches these.

``tests/unit/train/test_private_contracts.py`` tells by name what a new version of DeepSpeed has changed.
"""

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from unigeoseg.collector import collector_at_rest

if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")


@dataclass(frozen=True)
class Held:
    """Consecutive elements of a parameter that this rank updates.

    Attributes:
        start: the first, counted in the flattened parameter.
        count: how many.
        flat: the tensor that the optimizer updates.
        offset: of the first in the flattened ``flat``.
    """

    start: int
    count: int
    flat: Tensor
    offset: int


@contextmanager
def _absent(name: str) -> Iterator[None]:
    """Within it a module cannot be imported, unless it has been."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]


def import_deepspeed() -> Any:
    """DeepSpeed, quiet, and without its shared-memory op.

    The op is compiled at the first use on a CPU, which takes minutes and needs a compiler; gloo does without.
    ``import deepspeed.comm.torch`` would give another module under that name, hence ``sys.modules``.
    """
    # MLflow is a second of each worker's start, for DeepSpeed's tuner, which is not used here.
    with _absent("mlflow"), collector_at_rest():
        import deepspeed

    # DeepSpeed decorates Muon's kernels with torch.compile as soon as any optimizer is sharded, which loads
    # all of Inductor: seconds of each worker's start, for an optimizer that is not used here.
    with patch.dict(os.environ, TORCHDYNAMO_DISABLE="1"):
        import deepspeed.runtime.zero.muon.muon_optimizer
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    # Of names that DeepSpeed calls at each step.
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
    sys.modules["deepspeed.comm.torch"].build_shm_op = lambda: None  # type: ignore[attr-defined]
    return deepspeed


def cut_parameters(module: nn.Module, settings: dict[str, Any], dtype: torch.dtype) -> None:
    """Cuts a model's weights as stage 3 of ZeRO does, one after the other; a collective call.

    ``deepspeed.initialize`` would first convert the whole model and bring it to the worker's device, and cut
    it then: every worker would hold all of it for a moment.

    Args:
        module: on the CPU, the same on every worker.
        settings: DeepSpeed's configuration.
        dtype: in which the model computes.
    """
    import deepspeed

    deepspeed.init_distributed(dist_init_required=False)  # else it takes this worker for the only one
    first: Any = None
    # What the first worker sends would else be written into the mapped pages of a file, all of which then
    # stay until the last weight of that file is cut. One place for all leaves no holes between the parts.
    place = torch.empty(max((p.numel() for p in module.parameters()), default=0), dtype=dtype)
    for parameter in module.parameters():
        parameter.data = place[: parameter.numel()].view(parameter.shape).copy_(parameter.data)
        if first is None:
            deepspeed.zero.Init(module=nn.ParameterList([parameter]), config_dict_or_path=settings)
            first = parameter
        else:
            first.convert_to_zero_parameters(param_list=[parameter])


def whole_shape(parameter: Tensor) -> tuple[int, ...]:
    """The shape of a parameter, which stage 3 of ZeRO has cut."""
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


def whole_count(parameter: Tensor) -> int:
    """The elements of a parameter, which stage 3 of ZeRO has cut."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def held_in_group(parameter: Any, optimizer: Any) -> Held | None:
    """What this rank updates of a parameter under stage 1 or 2; ``None``: nothing."""
    link = parameter._hp_mapping
    if link is None:  # another rank's
        return None
    # BF16_Optimizer and the optimizer of stages 1 and 2 call the same thing by two names.
    groups = (
        getattr(optimizer, "single_partition_of_fp32_groups", None) or optimizer.fp32_groups_flat_partition
    )
    at, place = link.lp_fragment_address, link.hp_fragment_address
    return Held(at.start, at.numel, groups[link.param_group_index], place.start)


def held_in_partition(parameter: Any, optimizer: Any, rank: int) -> Held | None:
    """What this rank updates of a parameter under stage 3; ``None``: nothing."""
    group, offset, size = optimizer.grad_position[optimizer.get_param_id(parameter)]
    start = rank * size
    count = min(size, whole_count(parameter) - start)  # the last partitions are padded
    if count <= 0:
        return None
    return Held(start, count, optimizer.fp32_partitioned_groups_flat[group], offset)


def inner_optimizer(engine: Any) -> torch.optim.Optimizer:
    """The optimizer that the engine was given."""
    inner: torch.optim.Optimizer = getattr(engine.optimizer, "optimizer", engine.optimizer)
    return inner


def publish_weights(engine: Any, stage: int) -> None:
    """Copies the masters into the weights that the model computes with; a collective call."""
    optimizer = engine.optimizer
    if stage in (1, 2):
        optimizer.update_lp_params()
    elif stage == 3:
        optimizer.checkpoint_event_prologue()
        for group in range(len(optimizer.fp32_partitioned_groups_flat)):
            optimizer._reassign_or_swap_out_partitioned_parameters(group)
        optimizer.checkpoint_event_epilogue()


def drop_gradient(engine: Any) -> None:
    """Ends a step of stage 0 without an update: of ``engine.step()`` this is all that is wanted."""
    engine.zero_grad()
    engine.micro_steps += 1
