"""The optimizer and its parameter groups: one, or several when parts learn at rates or rules of their own."""

from typing import Any

from torch import nn

from pipelines.config.training import TrainConfig
from pipelines.train.engine.muon import MuonAdamW
from unigeoseg.model import UniGeoSeg
from unigeoseg.optim.layer_scales import encoder_scales
from unigeoseg.optim.orthogonal import matrix_names
from unigeoseg.weights.words import word_parameters


def parameter_groups(model: nn.Module, train: TrainConfig) -> tuple[list[dict[str, Any]], list[float]]:
    """Trainable parameters by rule and by the factor on their learning rate, in the order of the model.

    Returns:
        Groups for the optimizer (``params``, their ``names``, and whether ``muon`` trains them), and the
        factor of each; one group of factor 1 unless ``train.encoder_lr``, ``train.encoder_lr_decay``,
        ``train.embedding_lr`` or ``train.optimizer`` says otherwise.
    """
    scales = encoder_scales(model, train.encoder_lr, train.encoder_lr_decay)
    if train.embedding_lr != 1.0 and isinstance(model, UniGeoSeg):
        scales |= dict.fromkeys(word_parameters(model), train.embedding_lr)
    turned = matrix_names(model) if train.optimizer == "muon" else set()
    members: dict[tuple[bool, float], list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            muon = name in turned
            factor = scales.get(name, 1.0) * (train.muon_lr if muon else 1.0)
            members.setdefault((muon, factor), []).append((name, parameter))
    groups = []
    for (muon, _), pairs in members.items():
        ordered = _mixed(pairs) if muon else pairs
        groups.append({"params": [p for _, p in ordered], "names": {n for n, _ in ordered}, "muon": muon})
    return groups, [factor for _, factor in members]


def _mixed(pairs: list[tuple[str, nn.Parameter]]) -> list[tuple[str, nn.Parameter]]:
    """An order in which every stretch has its share of large matrices.

    ZeRO gives each rank a stretch of equal size, and turning a matrix costs its size times its smaller side.
    In the model's order one rank would hold the encoder's wide end and the others wait for it. Sorted by that
    side and taken at multiples of the golden section, any stretch has its share of each.
    """
    ranked = sorted(pairs, key=lambda pair: (min(pair[1].flatten(1).shape), pair[0]))
    golden = (5**0.5 - 1) / 2
    return [ranked[i] for i in sorted(range(len(ranked)), key=lambda i: i * golden % 1)]


def make_optimizer(model: nn.Module, train: TrainConfig, fused: bool) -> tuple[MuonAdamW, list[float]]:
    """The optimizer that ``train.optimizer`` names, and the factor on the learning rate of each group.

    Args:
        model: whose trainable parameters it updates.
        train: rates and rules.
        fused: AdamW in one kernel; not for parameters that are moved between devices.
    """
    groups, scales = parameter_groups(model, train)
    settings = {"lr": train.lr, "betas": train.betas, "weight_decay": train.weight_decay, "fused": fused}
    return MuonAdamW(groups, **settings), scales
