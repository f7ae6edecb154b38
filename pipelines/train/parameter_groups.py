"""The optimizer's parameter groups: one, or several when the encoder learns at rates of its own."""

from typing import Any

from torch import nn

from pipelines.config import TrainConfig
from unigeoseg.layer_scales import encoder_scales
from unigeoseg.model import UniGeoSeg
from unigeoseg.weights.words import word_parameters


def parameter_groups(model: nn.Module, train: TrainConfig) -> tuple[list[dict[str, Any]], list[float]]:
    """Trainable parameters by the factor on their learning rate, in the order of the model.

    Returns:
        Groups for the optimizer, and the factor of each; one group of factor 1 unless
        ``train.encoder_lr``, ``train.encoder_lr_decay`` or ``train.embedding_lr`` says otherwise.
    """
    scales = encoder_scales(model, train.encoder_lr, train.encoder_lr_decay)
    if train.embedding_lr != 1.0 and isinstance(model, UniGeoSeg):
        scales |= dict.fromkeys(word_parameters(model), train.embedding_lr)
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(scales.get(name, 1.0), []).append(parameter)
    return [{"params": members} for members in groups.values()], list(groups)
