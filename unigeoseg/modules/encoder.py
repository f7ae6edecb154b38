"""What vision encoders have in common: pixels in, frozen or trained, four maps out."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from unigeoseg.config import VisionConfig
from unigeoseg.modules.coordinates import coordinate_grid


class Encoder(nn.Module, ABC):
    """uint8 images ``[I, 3, S, S]`` to four maps ``[I, widths[i], ...]`` at strides of 4 to 32 pixels.

    A frozen encoder stays in eval mode whatever the model's mode, and runs without autograd.

    Args:
        config: whether it is frozen and gets coordinates.
        mean: of the pixels, RGB on the 0-255 scale.
        std: likewise.

    Attributes:
        widths: channels of the maps, set by the kinds of encoders.
        checkpointing: whether the backward pass computes blocks again.
    """

    mean: Tensor
    std: Tensor
    widths: list[int]

    def __init__(self, config: VisionConfig, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.frozen = config.frozen
        self.checkpointing = False
        self.coordinate_channels = config.coordinate_channels
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def train(self, mode: bool = True) -> "Encoder":
        """As usual, except that a frozen encoder stays in eval mode."""
        return super().train(mode and not self.frozen)

    def forward(self, images: Tensor) -> list[Tensor]:
        """The four feature maps, channels first."""
        if self.frozen:
            with torch.no_grad():
                return self._features(self._pixels(images))
        return self._features(self._pixels(images))

    @abstractmethod
    def compiled_parts(self) -> list[nn.Module]:
        """What ``torch.compile`` is worth."""

    @abstractmethod
    def _features(self, pixels: Tensor) -> list[Tensor]:
        """The four maps of normalised pixels ``[I, C, S, S]``."""

    def _pixels(self, images: Tensor) -> Tensor:
        """Normalised, in the dtype of the weights, with two channels of coordinates where these are set."""
        dtype = next(self.parameters()).dtype
        pixels = ((images.float() - self.mean.float()) / self.std.float()).to(dtype)
        if self.coordinate_channels:
            grid = coordinate_grid(pixels).expand(len(pixels), -1, -1, -1)
            pixels = torch.cat([pixels, grid], dim=1)
        return pixels

    def _freeze(self) -> None:
        """Called by a kind of encoder when its parts are there."""
        if self.frozen:
            self.requires_grad_(False)
            self.eval()

    def _recompute(self) -> bool:
        return self.checkpointing and self.training and not self.frozen
