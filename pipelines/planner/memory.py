"""Memory of a training worker under each ZeRO stage, without a GPU at hand.

Model states of stages 2 and 3 in bfloat16 are DeepSpeed's own estimates
(``estimate_zero2_model_states_mem_needs``, ``estimate_zero3_model_states_mem_needs``) for the trained
parameters; frozen ones are held besides in the training precision. The rest follows Rajbhandari et al. 2020
(ZeRO, section 3): per trained parameter 2 bytes of weight, 2 of gradient and 12 of float32 master weight and
Adam moments, the last divided among the workers from stage 1 on. In float32 there are no master weights:
4 + 4 + 8 bytes.
"""

from dataclasses import dataclass

from pipelines.config import Config

STAGES = (0, 1, 2, 3)


@dataclass(frozen=True)
class Sizes:
    """Of a model, in numbers of parameters and bytes of one sample.

    Attributes:
        total: parameters.
        trained: those with gradients.
        largest: parameters of the largest layer.
        activations: bytes that a sample keeps for the backward pass, without activation checkpointing.
        checkpointed: the same with it.
    """

    total: int
    trained: int
    largest: int
    activations: int
    checkpointed: int


@dataclass(frozen=True)
class MemoryRow:
    """Bytes on the device and in host memory of one worker."""

    stage: int
    offload: bool
    checkpointing: bool
    states: int
    activations: int
    host: int

    @property
    def device(self) -> int:
        """Bytes on the GPU."""
        return self.states + self.activations


def memory_rows(config: Config, sizes: Sizes, world: int, per_node: int) -> list[MemoryRow]:
    """Every stage with and without optimizer offload and activation checkpointing.

    Args:
        config: for precision and the samples held at once.
        sizes: of the model.
        world: workers.
        per_node: workers on one machine.
    """
    samples = config.micro_batch * config.data.instructions_per_image
    rows = []
    for stage in STAGES:
        for offload in (False, True) if stage else (False,):
            states, host = model_states(sizes, stage, offload, world, per_node, config.train.precision)
            for checkpointing in (False, True):
                each = sizes.checkpointed if checkpointing else sizes.activations
                rows.append(MemoryRow(stage, offload, checkpointing, states, samples * each, host))
    return rows


def model_states(
    sizes: Sizes, stage: int, offload: bool, world: int, per_node: int, precision: str
) -> tuple[int, int]:
    """Bytes of weights, gradients and optimizer on the device, and bytes in host memory."""
    frozen = (sizes.total - sizes.trained) * (2 if precision == "bf16" else 4)
    if precision == "fp32" or stage < 2:
        return _by_hand(sizes.trained, stage, offload, world, precision, frozen)
    # Their modules print and need a device; the two functions are arithmetic alone.
    from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs
    from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs

    nodes = max(1, world // per_node)
    if stage == 2:
        host, device = estimate_zero2_model_states_mem_needs(sizes.trained, per_node, nodes, offload)
        return device + frozen, host if offload else 0
    host, device, _ = estimate_zero3_model_states_mem_needs(
        sizes.trained, sizes.largest, per_node, nodes, offload, cpu_offload_params=False
    )
    return device + frozen // world, host if offload else 0


def _by_hand(
    trained: int, stage: int, offload: bool, world: int, precision: str, frozen: int
) -> tuple[int, int]:
    weight, gradient, optimizer = (2, 2, 12) if precision == "bf16" else (4, 4, 8)
    if stage == 0 and precision == "bf16":
        weight, gradient, optimizer = 4, 4, 8  # autocast over float32 weights
    parts = [
        weight * trained / (world if stage == 3 else 1) + frozen / (world if stage == 3 else 1),
        gradient * trained / (world if stage >= 2 else 1),
    ]
    state = optimizer * trained / (world if stage >= 1 else 1)
    return round(sum(parts) + (0 if offload else state)), round(state if offload else 0)
