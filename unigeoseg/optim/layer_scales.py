"""Layer-wise learning rates for an encoder that is trained (ours; the paper's encoder is frozen)."""

import re

from torch import nn

_LAYER = re.compile(r"vision\.swin\.layers\.(\d+)\.(?:blocks\.(\d+)|downsample)\.")
_NORM = re.compile(r"vision\.norms\.(\d+)\.")


def encoder_scales(model: nn.Module, factor: float, decay: float) -> dict[str, float]:
    """Factor on the learning rate of each parameter under ``vision.``.

    ``factor * decay ** (blocks - depth)``: depth counts blocks through all stages from 1, a stage's merging
    counts with its first block, its output norm with its last, the patch embedding is depth 0. As in the
    layer-wise decay of BEiT (Bao et al. 2022).
    """
    names = [name for name, _ in model.named_parameters() if name.startswith("vision.")]
    depths = _depths(names)
    before = [sum(depths[:stage]) for stage in range(len(depths))]
    total = sum(depths)
    scales = {}
    for name in names:
        depth = 0
        if match := _LAYER.match(name):
            depth = before[int(match[1])] + int(match[2] or 0) + 1
        elif match := _NORM.match(name):
            stage = int(match[1])
            depth = before[stage] + depths[stage]
        scales[name] = factor * decay ** (total - depth)
    return scales


def _depths(names: list[str]) -> list[int]:
    blocks = {(int(m[1]), int(m[2])) for name in names if (m := _LAYER.match(name)) and m[2]}
    stages = max((stage for stage, _ in blocks), default=-1) + 1
    return [sum(1 for stage, _ in blocks if stage == wanted) for wanted in range(stages)]
