"""Boxes and points of an instruction as maps that a mask starts from.

Text carries a prompt's numbers through the language model into one query, which is a long way to a mask that
ends where the box ends. Here they are also drawn: each instruction gets a few fixed maps on the mask's grid,
and its query says how much of each is added to the mask's logits. Interactive segmentation has long given
prompts as maps (Xu et al., CVPR 2016, arXiv 1603.04042; SAM adds them to its image features). Ours, off in
the paper's model. Without a box or a point all maps are zero.
"""

import torch
from torch import Tensor, nn

#: What a box has: one everywhere, the covered share of a cell, a bump in its middle. What points have: one
#: everywhere, a narrow and a wide bump around the nearest of them.
MAPS = 6
#: What is added before anything is learnt: the filled box, and what lies near a point.
_START = (-1.0, 2.0, 1.0, -1.0, 2.0, 1.0)
#: Standard deviations of the points' bumps, as shares of the picture's side.
_SPREAD = (1 / 16, 1 / 6)


def prompt_maps(coordinates: Tensor, given: Tensor, shape: tuple[int, int]) -> Tensor:
    """The maps of each instruction, float32 ``[B, MAPS, h * w]``.

    Args:
        coordinates: float32 ``[B, 6]`` in [0, 1] of the letterboxed picture: a box's corners or up to three
            points, as :class:`unigeoseg.samples.batch.Batch` has them.
        given: bool ``[B, 7]``: which numbers are given, and last whether they are a box.
        shape: of the grid, ``(h, w)``.
    """
    coordinates = coordinates.float()
    steps = [torch.arange(n + 1, device=coordinates.device) / n for n in shape]
    is_box = given[:, 6]
    cover, bump = torch.ones(2, len(given), *shape, device=coordinates.device)
    near = torch.full((len(given), *shape), torch.inf, device=coordinates.device)
    for axis, edges in enumerate((steps[1], steps[0])):  # x, then y
        low, high = coordinates[:, axis, None], coordinates[:, axis + 2, None]
        low, high = torch.minimum(low, high), torch.maximum(low, high)
        shared = torch.minimum(high, edges[1:]) - torch.maximum(low, edges[:-1])
        share = shared.clamp(min=0) * (len(edges) - 1)
        middles = (edges[1:] + edges[:-1]) / 2
        half = ((high - low) / 2).clamp(min=0.5 / (len(edges) - 1))
        fall = (-(((middles - (low + high) / 2) / half) ** 2)).exp()
        cover = cover * (share[:, None, :] if axis == 0 else share[:, :, None])
        bump = bump * (fall[:, None, :] if axis == 0 else fall[:, :, None])
    middle_x, middle_y = ((edges[1:] + edges[:-1]) / 2 for edges in (steps[1], steps[0]))
    for first in (0, 2, 4):
        x, y = coordinates[:, first, None, None], coordinates[:, first + 1, None, None]
        distance = (middle_x - x) ** 2 + (middle_y[:, None] - y) ** 2
        near = torch.minimum(near, distance.masked_fill(~given[:, first, None, None], torch.inf))
    points = [(-near / (2 * spread**2)).exp() for spread in _SPREAD]
    one = torch.ones_like(cover)
    box, point = is_box[:, None, None, None], (~is_box & given[:, 0])[:, None, None, None]
    maps = torch.cat(
        [torch.stack([one, cover, bump], 1) * box, torch.stack([one, *points], 1).nan_to_num() * point], 1
    )
    return maps.flatten(2)


class PromptWeights(nn.Module):
    """A query's weights of the maps: ``[B, c]`` to ``[B, MAPS]``; the same for all before training."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden, MAPS)
        nn.init.zeros_(self.linear.weight)
        with torch.no_grad():
            self.linear.bias.copy_(torch.tensor(_START))

    def forward(self, query: Tensor) -> Tensor:
        """See the class."""
        weights: Tensor = self.linear(query)
        return weights
