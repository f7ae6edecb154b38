"""Low-rank adapters on the language model (Hu et al. 2022), through ``peft``; ours, not the paper's.

Adapters are put in after the weights are loaded and merged before they are exported, so that neither weights
nor exports know of them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from unigeoseg.errors import UserError
from unigeoseg.modules.dropout import SampleDropout

_BASE, _A, _B = ".base_layer.", ".lora_A.default.weight", ".lora_B.default.weight"


def add_lora(
    language: Any, rank: int, alpha: float, dropout: float, targets: Sequence[str], embeddings: bool
) -> None:
    """Freezes a causal LM and puts adapters on its linear layers, in place.

    Args:
        language: the Hugging Face model.
        rank: of the adapters.
        alpha: scale, divided by ``rank``.
        dropout: on the adapters' input.
        targets: last parts of the names of the layers; none takes every linear layer of the blocks.
        embeddings: keeps embeddings and output layer trainable.

    Raises:
        UserError: no layer has one of the names.
    """
    from peft import LoraConfig, inject_adapter_in_model  # half a second, for who has adapters

    head = language.get_output_embeddings()
    names = {
        n.split(".")[-1] for n, m in language.named_modules() if isinstance(m, nn.Linear) and m is not head
    }
    absent = [name for name in targets if name not in names]
    if absent:
        raise UserError(
            f"train.lora.targets: the language model has no linear layer {', '.join(absent)}; "
            f"there are {', '.join(sorted(names))}"
        )
    config = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=sorted(targets or names), bias="none"
    )
    inject_adapter_in_model(config, language)
    if dropout:
        _draw_by_sample(language, dropout)
    for name, parameter in language.named_parameters():
        parameter.requires_grad_("lora_" in name)
    if embeddings:
        for module in (language.get_input_embeddings(), head):
            if module is not None:
                module.requires_grad_(True)


def _draw_by_sample(language: Any, dropout: float) -> None:
    """Puts dropout in place of ``peft``'s whose draws do not depend on the rest of the batch."""
    from peft.tuners.lora import LoraLayer

    layers = [module for module in language.modules() if isinstance(module, LoraLayer)]
    for number, layer in enumerate(layers, 1):
        layer.lora_dropout["default"] = SampleDropout(dropout, on_tokens=True, number=number)


def merge_lora(state: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """A state dict without adapters: W + scale B A under the plain names.

    Args:
        state: of a model with or without adapters (then it comes back as it is).
        scale: alpha / rank.
    """
    merged: dict[str, Tensor] = {}
    for name, value in state.items():
        if name.endswith((_A, _B)):
            continue
        plain = name.replace(_BASE, ".")
        layer = name.removesuffix(f"{_BASE}weight")
        if layer != name:
            update = state[layer + _B].float() @ state[layer + _A].float()
            value = (value.float() + scale * update).to(value.dtype)
        merged[plain] = value
    return merged
