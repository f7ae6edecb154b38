"""The image connector "SparseConv_1": res5 to language-model tokens."""

import torch
from torch import Tensor, nn

from unigeoseg.config import ConnectorConfig
from unigeoseg.modules.coordinates import coordinate_grid


class Connector(nn.Module):
    """res5 ``[I, C, h, w]`` to image tokens ``[I, N, d]``: 3x3, LN, 3x3 (stride), LN, 1x1; no activations.

    The layer norms run over channels and positions together, as released, so the map's size is fixed.
    """

    def __init__(self, config: ConnectorConfig, channels: int, side: int, width: int) -> None:
        super().__init__()
        out = -(-side // config.stride)
        self.proj1 = nn.Conv2d(channels, width, 3, stride=1, padding=1)
        self.norm1 = nn.LayerNorm([width, side, side])
        self.proj2 = nn.Conv2d(width, width, 3, stride=config.stride, padding=1)
        self.norm2 = nn.LayerNorm([width, out, out])
        self.fc = nn.Conv2d(width, width, 1)
        self.position = nn.Conv2d(2, width, 1) if config.coordinates else None

    def forward(self, res5: Tensor) -> Tensor:
        """Image tokens in row-major order."""
        x = self.norm1(self.proj1(res5))
        x = self.fc(self.norm2(self.proj2(x)))
        if self.position is not None:
            x = x + self.position(coordinate_grid(x))
        tokens: Tensor = torch.flatten(x, 2).transpose(1, 2)
        return tokens
