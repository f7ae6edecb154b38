"""What the predicted masks of a training step look like: none, all, and how near to the truth.

A loss can fall while every mask stays empty; these numbers show it. An empty mask is right where the truth is
empty, so such samples count apart.
"""

import torch
from torch import Tensor

from unigeoseg.losses.terms import cell_shares

#: Share of the cells from which on a mask counts as one of the whole picture.
FULL = 0.99
#: The names, in the order of the rows of :func:`watch_masks`.
WATCHED = ("empty", "full", "soft_dice", "absent", "false_alarms")


@torch.no_grad()
def watch_masks(logits: Tensor, masks: Tensor, limit: float) -> Tensor:
    """Looks at each mask; float32 ``[5, B]`` in the order of :data:`WATCHED`.

    Whether it is empty though there is a target, whether it is full, its soft dice (0 without a target),
    whether there is no target, and whether there is a mask all the same.

    Soft dice is ``(2 sum(p t) + 1) / (sum(p) + sum(t) + 1)`` over all cells, with p the probability and t the
    share of foreground of a cell: it rises before any mask forms.

    Args:
        logits: of the last level, ``[B, h, w]``.
        masks: truth ``[B, S, S]``, 0 or 1.
        limit: logit above which a cell is foreground.
    """
    flat = logits.float().flatten(1)
    truth = cell_shares(masks, *logits.shape[1:]).flatten(1)
    covered = (flat > limit).float().mean(1)
    probability = flat.sigmoid()
    dice = (2 * (probability * truth).sum(1) + 1) / (probability.sum(1) + truth.sum(1) + 1)
    target = masks.flatten(1).bool().any(1)  # of bytes it would be bytes, whose ~ is no negation
    rows = ((covered == 0) & target, covered >= FULL, dice * target, ~target, (covered > 0) & ~target)
    return torch.stack([row.float() for row in rows])
