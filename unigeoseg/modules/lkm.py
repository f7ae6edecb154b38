"""Latent knowledge memory, LKM (UniGeoSeg, arXiv 2511.23332, equations 6-7)."""

import math

import torch
from torch import Tensor, nn

from unigeoseg.config import LKMConfig
from unigeoseg.errors import UserError


class LatentKnowledgeMemory(nn.Module):
    """H' = (1 - lambda) H + lambda Z with Z = softmax(H M^T) M over N learned slots M ``[N, d]``.

    ``weight`` 0 or ``slots`` 0 returns H itself, exactly; the module then holds no parameters. ``learned``
    makes lambda the sigmoid of a parameter that starts at ``weight`` (ours, not the paper's).

    Raises:
        UserError: ``learned`` with a start that no sigmoid takes.
    """

    def __init__(self, config: LKMConfig, width: int) -> None:
        super().__init__()
        weight = config.weight if config.slots else 0.0
        self.weight = weight
        self.memory = nn.Parameter(torch.randn(config.slots, width) * width**-0.5) if weight else None
        self.gate: nn.Parameter | None = None
        if config.learned:
            if not 0 < weight < 1:
                raise UserError(
                    f"model.lkm.learned needs slots and a start weight between 0 and 1, not "
                    f"slots={config.slots}, weight={config.weight}; for no memory set learned=false"
                )
            self.gate = nn.Parameter(torch.tensor(math.log(weight / (1 - weight))))

    def forward(self, states: Tensor) -> Tensor:
        """``states [B, L, d]`` to ``[B, L, d]``."""
        if self.memory is None:
            return states
        weight: float | Tensor = self.weight if self.gate is None else self.gate.sigmoid()
        scores = (states @ self.memory.T).float().softmax(-1).to(states.dtype)
        return (1 - weight) * states + weight * (scores @ self.memory)
