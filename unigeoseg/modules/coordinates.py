"""Grids: where the cells of a map lie, and how many there are."""

from collections.abc import Sequence

import torch
from torch import Tensor


def coordinate_grid(like: Tensor) -> Tensor:
    """Pixel-centre coordinates (x, y) in [-1, 1], ``[1, 2, H, W]``, dtype and device of ``like``."""
    height, width = like.shape[-2:]
    ys = (torch.arange(height, device=like.device) * 2 + 1) / height - 1
    xs = (torch.arange(width, device=like.device) * 2 + 1) / width - 1
    grid = torch.stack([xs.expand(height, width), ys[:, None].expand(height, width)])
    return grid[None].to(like.dtype)


def feature_sides(image_size: int, patch: int) -> Sequence[int]:
    """Sides of res2..res5 for a square image."""
    side = -(-image_size // patch)
    return [-(-side // 2**i) for i in range(4)]
