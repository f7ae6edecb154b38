"""What a model weighs and keeps, part by part: what memory is counted from."""

from dataclasses import dataclass
from typing import Any

from pipelines.config import Config
from pipelines.models.info import INSTRUCTION, OF_IMAGE, describe_both


@dataclass(frozen=True)
class ModuleSizes:
    """A part of the model, in the order of the forward pass.

    Attributes:
        trained: its parameters with gradients.
        of_image: whether it runs once an image, not once an instruction.
        kept: bytes that one run keeps for the backward pass.
        peak: the most bytes that forward and backward pass of one run hold at once.
    """

    trained: int
    of_image: bool
    kept: int
    peak: int


@dataclass(frozen=True)
class Sizes:
    """Of a model.

    Attributes:
        total: parameters.
        trained: those with gradients.
        largest: parameters of the largest layer.
        modules: without and with activation checkpointing.
        matrices: of the trained ones, those that Muon would turn.
    """

    total: int
    trained: int
    largest: int
    modules: dict[bool, tuple[ModuleSizes, ...]]
    matrices: int = 0

    def plain(self) -> dict[str, int]:
        """Numbers alone; activations are those of one image with one instruction."""
        kept = {on: sum(m.kept for m in modules) for on, modules in self.modules.items()}
        return {
            "total": self.total,
            "trained": self.trained,
            "largest": self.largest,
            "activations": kept[False],
            "checkpointed": kept[True],
        }


def measure_model(config: Config, instruction: int = INSTRUCTION) -> tuple[Sizes, int, int]:
    """Sizes of the model, and FLOPs of training on an image and on each of its instructions.

    Recomputation is left out of the FLOPs, as MFU leaves it out.

    Args:
        config: of the job.
        instruction: tokens of an instruction.
    """
    told = describe_both(config, instruction)
    chosen = told[config.train.activation_checkpointing]
    language = max(config.model.language.layers, 1)
    layers = next(row["parameters"] for row in chosen["modules"] if row["name"] == "language.layers")
    head = max(row["parameters"] for row in chosen["modules"] if row["name"] != "language.layers")
    sizes = Sizes(
        total=chosen["total"],
        trained=chosen["trainable"],
        largest=max(layers // language, head),
        modules={on: _module_sizes(rows["modules"]) for on, rows in told.items()},
        matrices=chosen["matrices"],
    )
    flops = {row["name"]: row["flops_forward"] + row["flops_backward"] for row in told[False]["modules"]}
    of_image = sum(flops[name] for name in OF_IMAGE)
    return sizes, of_image, sum(flops.values()) - of_image


def _module_sizes(rows: list[dict[str, Any]]) -> tuple[ModuleSizes, ...]:
    return tuple(
        ModuleSizes(row["trainable"], row["name"] in OF_IMAGE, row["activation_bytes"], row["peak_bytes"])
        for row in rows
    )
