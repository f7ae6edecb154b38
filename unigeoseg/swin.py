"""Swin Transformer with padded windows: the window keeps its size on every map (Liu et al. 2021).

As Mask2Former and the released code run it: after the first norm a map is zero-padded to multiples of the
window, padded tokens take part as keys (their key and value are the projection's bias), the shift happens
after padding, and the shift mask is -100. timm's own model shrinks the window to small maps and shifts before
it pads; names of parameters are timm's, so that weights fit both.
"""

import torch
from timm.layers import Mlp
from timm.models.swin_transformer import PatchMerging, WindowAttention, window_partition, window_reverse
from torch import Tensor, nn

_MASKED = -100.0


class PatchEmbedding(nn.Module):
    """Pixels ``[I, C, H, W]`` to patches ``[I, h, w, c]``; a last incomplete patch is padded with zeros."""

    def __init__(self, channels: int, width: int, patch: int) -> None:
        super().__init__()
        self.patch = patch
        self.proj = nn.Conv2d(channels, width, patch, stride=patch)
        self.norm = nn.LayerNorm(width)

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalised patch embeddings, channels last."""
        height, width = pixels.shape[-2:]
        padded = nn.functional.pad(pixels, (0, -width % self.patch, 0, -height % self.patch))
        normed: Tensor = self.norm(self.proj(padded).permute(0, 2, 3, 1))
        return normed


class PaddedBlock(nn.Module):
    """Window attention and feed-forward, pre-norm, for maps of one size."""

    def __init__(self, width: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.window, self.shift = window, shift
        self.norm1 = nn.LayerNorm(width)
        self.attn = WindowAttention(width, heads, window_size=window)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, 4 * width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """``x [I, h, w, c]``, ``mask [windows, window^2, window^2]`` for shifted windows."""
        x = x + self._attend(self.norm1(x), mask)
        mixed: Tensor = x + self.mlp(self.norm2(x))
        return mixed

    def _attend(self, x: Tensor, mask: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        size = (self.window, self.window)
        x = nn.functional.pad(x, (0, 0, 0, -width % self.window, 0, -height % self.window))
        rows, columns = x.shape[1:3]
        if self.shift:
            x = x.roll((-self.shift, -self.shift), (1, 2))
        windows = window_partition(x, size).flatten(1, 2)
        attended = self.attn(windows, mask if self.shift else None)
        x = window_reverse(attended.unflatten(1, size), size, rows, columns)
        if self.shift:
            x = x.roll((self.shift, self.shift), (1, 2))
        return x[:, :height, :width]


class PaddedStage(nn.Module):
    """Merging (not in the first stage) and blocks that shift every second time."""

    mask: Tensor

    def __init__(self, width: int, depth: int, heads: int, window: int, side: int, first: bool) -> None:
        super().__init__()
        self.downsample = nn.Identity() if first else PatchMerging(width // 2)
        self.blocks = nn.ModuleList(
            PaddedBlock(width, heads, window, (number % 2) * (window // 2)) for number in range(depth)
        )
        self.register_buffer("mask", shift_mask(side, window), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[I, h, w, c]`` to ``[I, h/2, w/2, 2c]``, or the same size in the first stage."""
        x = self.downsample(x)
        mask = self.mask.to(x.dtype)
        for block in self.blocks:
            x = block(x, mask)
        return x


class PaddedSwin(nn.Module):
    """Patch embedding and four stages for one square image size.

    Args:
        channels: of the input image.
        width: of the first stage.
        depths: blocks by stage.
        heads: attention heads by stage.
        window: side of the windows on every map.
        patch: side of a patch in pixels.
        sides: sides of the four maps.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        depths: tuple[int, ...],
        heads: tuple[int, ...],
        window: int,
        patch: int,
        sides: list[int],
    ) -> None:
        super().__init__()
        self.patch_embed = PatchEmbedding(channels, width, patch)
        stages = enumerate(zip(depths, heads, sides, strict=True))
        self.layers = nn.ModuleList(
            PaddedStage(width * 2**n, depth, head, window, side, n == 0) for n, (depth, head, side) in stages
        )


def shift_mask(side: int, window: int) -> Tensor:
    """0 or -100, ``[windows, window^2, window^2]``: which tokens of a shifted window were neighbours."""
    shift = window // 2
    padded = side + -side % window
    regions = torch.zeros(padded, dtype=torch.int64)
    regions[padded - window : padded - shift] = 1
    regions[padded - shift :] = 2
    labels = (regions[:, None] * 3 + regions[None]).view(1, padded, padded, 1)
    labels = window_partition(labels, (window, window)).view(-1, window * window)
    apart = labels[:, None] != labels[:, :, None]
    return torch.zeros(apart.shape).masked_fill(apart, _MASKED)
