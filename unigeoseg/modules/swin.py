"""Swin Transformer with padded windows: the window keeps its size on every map (Liu et al. 2021).

As Mask2Former and the released code run it: after the first norm a map is zero-padded to multiples of the
window, padded tokens take part as keys (their key and value are the projection's bias), the shift happens
after padding, and the shift mask is -100. timm's own model shrinks the window to small maps and shifts before
it pads; names of parameters are timm's, so that weights fit both.
"""

import torch
from timm.layers import Mlp
from timm.models.swin_transformer import PatchMerging, WindowAttention, window_partition
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

    def forward(self, x: Tensor, places: Tensor, back: Tensor, mask: Tensor) -> Tensor:
        """``x [I, h, w, c]``; ``places``, ``back`` of :func:`window_places`; ``mask [windows, 1, n, n]``."""
        x = x + self._attend(self.norm1(x), places, back, mask)
        mixed: Tensor = x + self.mlp(self.norm2(x))
        return mixed

    def _attend(self, x: Tensor, places: Tensor, back: Tensor, mask: Tensor) -> Tensor:
        """Projections on real positions alone: all padded ones are one row of zeros."""
        images, height, width, channels = x.shape
        attn, area = self.attn, self.window**2
        rows = nn.functional.pad(x.flatten(1, 2), (0, 0, 0, 1))  # the last row is the padding
        qkv = (
            attn.qkv(rows)
            .index_select(1, places)
            .view(-1, area, 3, attn.num_heads, channels // attn.num_heads)
        )
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        bias: Tensor = attn._get_rel_pos_bias()
        if self.shift:
            bias = (bias + mask).expand(images, -1, -1, -1, -1).flatten(0, 1)
        read = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        read = read.transpose(1, 2).reshape(images, -1, channels).index_select(1, back)
        projected: Tensor = attn.proj(read)
        return projected.unflatten(1, (height, width))


class PaddedStage(nn.Module):
    """Merging (not in the first stage) and blocks that shift every second time."""

    mask: Tensor
    places: Tensor
    back: Tensor

    def __init__(self, width: int, depth: int, heads: int, window: int, side: int, first: bool) -> None:
        super().__init__()
        self.downsample = nn.Identity() if first else PatchMerging(width // 2)
        self.blocks = nn.ModuleList(
            PaddedBlock(width, heads, window, (number % 2) * (window // 2)) for number in range(depth)
        )
        self.register_buffer("mask", shift_mask(side, window)[:, None], persistent=False)
        pairs = [window_places(side, window, shift) for shift in (0, window // 2)]
        self.register_buffer("places", torch.stack([places for places, _ in pairs]), persistent=False)
        self.register_buffer("back", torch.stack([back for _, back in pairs]), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[I, h, w, c]`` to ``[I, h/2, w/2, 2c]``, or the same size in the first stage."""
        x = self.downsample(x)
        mask = self.mask.to(x.dtype)
        for number, block in enumerate(self.blocks):
            x = block(x, self.places[number % 2], self.back[number % 2], mask)
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


def window_places(side: int, window: int, shift: int) -> tuple[Tensor, Tensor]:
    """Padding, cyclic shift and partition of a map as one gather, and the gather that undoes it.

    Returns:
        int64 ``[padded positions]``: which position stands at each place of the windows in order, ``side^2``
        for padding; and int64 ``[side^2]``: where each position went.
    """
    padded = side + -side % window
    numbers = torch.full((padded, padded), side * side)
    numbers[:side, :side] = torch.arange(side * side).view(side, side)
    moved = numbers.roll((-shift, -shift), (0, 1)).view(1, padded, padded, 1)
    places = window_partition(moved, (window, window)).flatten()
    return places, places.argsort(stable=True)[: side * side]
