"""Mask losses: BCE and dice, all prediction levels in one call.

``LossConfig.sampling`` says where they are taken: at points drawn as Mask2Former does (oversampled, the most
uncertain share kept, the rest uniform), at uniform points, or in every cell of the prediction's grid. One
query and one target: no matching. Values are sums over instructions; the caller divides by the number of
instructions of the whole global batch, so that no value depends on how a batch is split over workers or
micro-batches.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unigeoseg.config import LossConfig

#: Odd multipliers that turn a sample's key into a shift of its points (Cranley-Patterson rotation).
_SHIFT = (0x9E3779B1, 0x85EBCA77)


@dataclass
class Losses:
    """The losses of a micro-batch, each a float32 sum over its instructions.

    Attributes:
        total: scalar, weighted; what is differentiated.
        parts: unweighted sums: ``mask_bce``, ``mask_dice`` (over all levels), ``language``.
        per_task: ``[3]``, weighted sums by task.
        counts: ``[3]``, instructions by task.
        watched: ``[5, 3]``, what the last level's masks look like: sums of
            :data:`unigeoseg.losses.mask_watch.WATCHED` (rows) by task.
    """

    total: Tensor
    parts: dict[str, Tensor]
    per_task: Tensor
    counts: Tensor
    watched: Tensor


def base_points(count: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """``count`` uniform points (x, y) in [0, 1), drawn on the CPU so that every device gets the same."""
    return torch.rand(count, 2, generator=generator).to(device)


def shifted_points(base: Tensor, keys: Tensor) -> Tensor:
    """A sample's own points: the base set moved around the torus by a hash of the sample, ``[B, P, 2]``.

    So the points depend on the step (through ``base``) and on the sample, never on the rest of the batch.
    """
    turned = torch.stack([keys * factor for factor in _SHIFT], 1)
    shift = (turned & 0xFFFFFF).to(torch.float32) / 0x1000000
    return (base[None] + shift[:, None]) % 1.0


def point_sample(maps: Tensor, points: Tensor) -> Tensor:
    """Bilinear values of ``maps [N, C, H, W]`` at ``points [N, P, 2]`` in [0, 1]: ``[N, C, P]``."""
    grid = (2 * points - 1)[:, :, None]
    return nn.functional.grid_sample(maps, grid, align_corners=False)[..., 0]


def uncertain_points(
    predictions: Tensor, keys: Tensor, config: LossConfig, generator: torch.Generator | None
) -> Tensor:
    """Points where the losses of ``predictions [P, B, h, w]`` are taken, ``[P, B, points, 2]`` (no gradient).

    All levels of a sample choose among the same candidates.
    """
    with torch.no_grad():
        kept = int(config.points * config.importance)
        device = predictions.device
        count = int(config.points * config.oversample)
        candidates = shifted_points(base_points(count, generator, device), keys)
        chosen = most_uncertain(predictions.transpose(0, 1).float(), candidates, kept)
        uniform = shifted_points(base_points(config.points - kept, generator, device), keys)
        shared = uniform[:, None].expand(-1, len(predictions), -1, -1)
        return torch.cat([chosen, shared], dim=2).transpose(0, 1)


def most_uncertain(logits: Tensor, candidates: Tensor, kept: int) -> Tensor:
    """The ``kept`` of ``candidates [B, N, 2]`` at which ``logits [B, P, h, w]`` are nearest to zero.

    Returns:
        ``[B, P, kept, 2]``.
    """
    margins = point_sample(logits, candidates).abs()
    nearest = margins.topk(kept, dim=2, largest=False, sorted=False).indices
    everywhere = candidates[:, None].expand(-1, logits.shape[1], -1, -1)
    return everywhere.gather(2, nearest[..., None].expand(-1, -1, -1, 2))


def mask_losses(
    predictions: Tensor, masks: Tensor, keys: Tensor, config: LossConfig, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """BCE and dice per instruction, summed over the prediction levels: two float32 ``[B]``.

    Args:
        predictions: logits ``[P, B, h, w]``.
        masks: truth ``[B, S, S]``, 0 or 1.
        keys: int64 ``[B]``.
        config: point counts.
        generator: CPU generator of the step, the same on every rank.
    """
    if config.sampling == "dense":
        bce, dice = dense_losses(predictions, masks)
    else:
        points = loss_points(predictions.detach(), keys, config, generator)
        bce, dice = losses_at(predictions, masks, points)
    return bce.sum(0), dice.sum(0)


def loss_points(
    predictions: Tensor, keys: Tensor, config: LossConfig, generator: torch.Generator | None
) -> Tensor:
    """Where the losses of ``predictions [P, B, h, w]`` are taken, ``[P, B, points, 2]`` (no gradient)."""
    if config.sampling == "uncertain":
        return uncertain_points(predictions, keys, config, generator)
    points = shifted_points(base_points(config.points, generator, predictions.device), keys)
    return points.expand(len(predictions), -1, -1, -1)


def cell_shares(masks: Tensor, height: int, width: int) -> Tensor:
    """Share of foreground in each cell of a grid: 0 or 1 ``[B, S, S]`` to float32 ``[B, height, width]``."""
    return nn.functional.adaptive_avg_pool2d(masks[:, None].float(), (height, width))[:, 0]


def dense_losses(predictions: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """BCE and dice, float32 ``[P, B]``, over every cell of ``predictions [P, B, h, w]``.

    The truth of a cell is its share of foreground, so nothing is lost between the cells and nothing is drawn.
    """
    logits = predictions.float().flatten(2)  # [P, B, N]
    truth = cell_shares(masks, *predictions.shape[2:]).flatten(1)  # [B, N]
    bce = nn.functional.binary_cross_entropy_with_logits(
        logits, truth.expand_as(logits), reduction="none"
    ).mean(2)
    probability = logits.sigmoid()
    overlap = 2 * (probability * truth).sum(2) + 1
    return bce, 1 - overlap / (probability.sum(2) + truth.sum(1) + 1)


def losses_at(predictions: Tensor, masks: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """BCE and dice, float32 ``[P, B]``, of ``predictions [P, B, h, w]`` at ``points [P, B, N, 2]``."""
    levels, count = predictions.shape[:2]
    maps = predictions.flatten(0, 1)[:, None].float()
    sampled = point_sample(maps, points.flatten(0, 1))[:, 0]
    per_sample = points.transpose(0, 1).flatten(1, 2)  # all levels of a sample read one truth
    truth = point_sample(masks[:, None].float(), per_sample)[:, 0]
    truth = truth.view(count, levels, -1).transpose(0, 1).flatten(0, 1)
    bce = nn.functional.binary_cross_entropy_with_logits(sampled, truth, reduction="none").mean(1)
    probability = sampled.sigmoid()
    overlap = 2 * (probability * truth).sum(1) + 1
    dice = 1 - overlap / (probability.sum(1) + truth.sum(1) + 1)
    return bce.view(levels, count), dice.view(levels, count)
