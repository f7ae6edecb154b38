"""Latent knowledge memory, LKM (UniGeoSeg, arXiv 2511.23332, equations 6-7)."""

import torch
from torch import Tensor, nn

from unigeoseg.config import LKMConfig


class LatentKnowledgeMemory(nn.Module):
    """H' = (1 - lambda) H + lambda Z with Z = softmax(H M^T) M over N learned slots M ``[N, d]``.

    ``weight`` 0 or ``slots`` 0 returns H itself, exactly; the module then holds no parameters.
    """

    def __init__(self, config: LKMConfig, width: int) -> None:
        super().__init__()
        self.weight = config.weight if config.slots else 0.0
        self.memory = nn.Parameter(torch.randn(config.slots, width) * width**-0.5) if self.weight else None

    def forward(self, states: Tensor) -> Tensor:
        """``states [B, L, d]`` to ``[B, L, d]``."""
        if self.memory is None:
            return states
        scores = (states @ self.memory.T).float().softmax(-1).to(states.dtype)
        return (1 - self.weight) * states + self.weight * (scores @ self.memory)
