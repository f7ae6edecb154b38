"""Configuration of the optimisation: steps, batches, rates, precision, and DeepSpeed."""

from typing import Any, Literal

from pydantic import Field, field_validator

from pipelines.config.section import Section


class LoRAConfig(Section):
    """Low-rank adapters on the language model instead of training all of it; ours, not the paper's."""

    rank: int = Field(0, ge=0, description="0: off, the whole language model is trained")
    alpha: float = Field(16.0, gt=0, description="the adapters' part is scaled by alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: tuple[str, ...] = Field(
        (), description="names of the linear layers that get adapters; none: all of the blocks"
    )
    embeddings: bool = Field(True, description="train embeddings and output layer too ([SEG] is new to them)")


class ProfileConfig(Section):
    """Traces of some steps (``torch.profiler``), in the run's ``profile/``."""

    steps: tuple[int, int] | None = Field(
        None, description="first and last step to trace, such as [20, 24]; null: none"
    )
    ranks: list[int] = Field([0], min_length=1, description="workers that trace")
    shapes: bool = Field(False, description="with the shapes of what each operation reads")
    memory: bool = Field(False, description="with what each operation allocates and frees")
    stacks: bool = Field(False, description="with the lines of code; slow")

    @field_validator("steps")
    @classmethod
    def _in_order(cls, steps: tuple[int, int] | None) -> tuple[int, int] | None:
        if steps is not None and not 0 <= steps[0] <= steps[1]:
            raise ValueError(
                f"train.profile.steps={list(steps)}: give the first and the last step, from 0 on"
            )
        return steps


class TrainConfig(Section):
    """Optimisation."""

    steps: int | None = Field(None, ge=1, description="optimizer steps; null: derived from epochs")
    epochs: float = Field(3.0, gt=0, description="passes over the split's samples when steps is null")
    global_batch: int = Field(
        16, ge=1, description="plan positions in one optimizer step, all workers together"
    )
    micro_batch: int | Literal["auto"] | None = Field(
        None,
        description="positions a worker holds at once; null: all that it has, with scale.workers of them; "
        "auto: as many as its device's memory allows, by the planner's count",
    )
    optimizer: Literal["adamw", "muon"] = Field(
        "adamw",
        description="muon: orthogonalised momentum for hidden layers' weights, AdamW for the rest; from "
        "scratch it took half the samples (docs/is_it_learning.md); not with ZeRO stage 3 or offload",
    )
    lr: float = Field(1e-4, gt=0)
    muon_lr: float = Field(
        1.0, gt=0, description="factor on lr for what muon trains (at 1 its steps are as long as AdamW's)"
    )
    warmup_ratio: float = Field(0.03, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    schedule: Literal["cosine", "constant"] = "cosine"
    grad_clip: float = Field(1.0, ge=0, description="0 switches clipping off")
    precision: Literal["bf16", "fp32"] = "bf16"
    activation_checkpointing: bool = True
    compile: bool = Field(
        False,
        description="torch.compile of the encoder's stages and the language model's blocks: faster steps on "
        "a GPU for a minute at the start; not with ZeRO stage 3",
    )
    compile_backend: str | None = Field(
        None,
        description="of torch.compile, by name (refused where it cannot run); null: inductor, and without "
        "compilation where a machine lacks the compiler for it",
    )
    encoder_lr: float = Field(
        1.0, gt=0, description="factor on lr for an encoder that is not frozen (model.vision.frozen=false)"
    )
    embedding_lr: float = Field(
        1.0,
        gt=0,
        description="factor on lr for token embeddings and output layer: a word's row moves only in steps "
        "that hold the word",
    )
    encoder_lr_decay: float = Field(
        1.0, gt=0, le=1, description="layer-wise: factor on lr per encoder block, from the last one down"
    )
    lora: LoRAConfig = LoRAConfig()
    log_every: int = Field(10, ge=1)
    profile: ProfileConfig = ProfileConfig()

    @field_validator("micro_batch", mode="before")
    @classmethod
    def _number_or_auto(cls, value: Any) -> Any:
        number = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        if not number and value not in ("auto", None):
            raise ValueError("give a number from 1 on, auto, or null")
        return value

    @property
    def given_micro_batch(self) -> int | None:
        """``micro_batch`` where it is a number."""
        return None if self.micro_batch == "auto" else self.micro_batch


class EngineConfig(Section):
    """DeepSpeed."""

    zero_stage: Literal[0, 1, 2, 3] = 2
    offload_optimizer: bool = False
    accumulation_dtype: Literal["fp32", "bf16"] = Field(
        "fp32",
        description="what gradients of a step's micro-batches are summed in where train.precision=bf16, in "
        "stages 2 and 3 without offload (elsewhere it is DeepSpeed's own choice)",
    )
    reduction_dtype: Literal["fp32", "bf16"] = Field(
        "bf16",
        description="what gradients are summed over workers in where train.precision=bf16, in stages 1 to 3: "
        "fp32 sends twice the bytes and rounds no sum of many workers",
    )
    look_ahead: bool | None = Field(
        None,
        description="copy the next micro-batch to the device, and run it through a frozen encoder, while the "
        "backward pass is under way (the same numbers; memory for one encoder pass more); null: on a GPU",
    )
    hpz_partition_size: int = Field(
        1,
        ge=1,
        description="stage 3: a second copy of the weights is cut over so many workers, those of one node, "
        "and the backward pass gathers it there (hierarchical partitioning of ZeRO++); 1: none",
    )
