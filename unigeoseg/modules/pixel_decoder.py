"""Mask2Former's pixel decoder (Cheng et al. 2022) with multi-scale deformable attention (Zhu et al. 2021).

Its convolutions carry biases and both the lateral and the output convolution end in ReLU, as in the released
code (``lateral_relu`` off: as in Mask2Former).
"""

import math

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.models.mask2former.modeling_mask2former import Mask2FormerSinePositionEmbedding

from unigeoseg.config import DecoderConfig
from unigeoseg.modules.coordinates import coordinate_grid
from unigeoseg.modules.deformable import deformable_sampling

_LEVELS = 3
_POINTS = 4
_GROUPS = 32


def sine_positions(hidden: int, height: int, width: int) -> Tensor:
    """Normalised sine position codes ``[hidden, height, width]``, float32."""
    embedding = Mask2FormerSinePositionEmbedding.build_sine_position_embedding(
        torch.Size((1, hidden, height, width)),
        torch.device("cpu"),
        torch.float32,
        hidden // 2,
        normalize=True,
        scale=2 * math.pi,
    )
    positions: Tensor = embedding[0]
    return positions


class DeformableAttention(nn.Module):
    """Each position reads a few learned offsets around itself on every level."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.sampling_offsets = nn.Linear(hidden, heads * _LEVELS * _POINTS * 2)
        self.attention_weights = nn.Linear(hidden, heads * _LEVELS * _POINTS)
        self.value_proj = nn.Linear(hidden, hidden)
        self.output_proj = nn.Linear(hidden, hidden)
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        angles = torch.arange(self.heads) * (2 * math.pi / self.heads)
        grid = torch.stack([angles.cos(), angles.sin()], -1)
        grid = (grid / grid.abs().amax(-1, keepdim=True)).view(self.heads, 1, 1, 2)
        steps = torch.arange(1, _POINTS + 1).view(1, 1, _POINTS, 1)
        bias = (grid * steps).expand(self.heads, _LEVELS, _POINTS, 2)
        nn.init.zeros_(self.sampling_offsets.weight)
        self.sampling_offsets.bias.copy_(bias.reshape(-1))
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for layer in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self, queries: Tensor, values: Tensor, reference: Tensor, shapes: list[tuple[int, int]]
    ) -> Tensor:
        """``queries, values [I, N, c]``, ``reference [N, 2]`` (x, y in [0, 1]) to ``[I, N, c]``."""
        images, positions, _ = queries.shape
        value = self.value_proj(values).view(images, positions, self.heads, -1)
        offsets = self.sampling_offsets(queries).view(images, positions, self.heads, _LEVELS, _POINTS, 2)
        weights = self.attention_weights(queries).view(images, positions, self.heads, -1).softmax(-1)
        weights = weights.view(images, positions, self.heads, _LEVELS, _POINTS)
        sampled = deformable_sampling(value, shapes, reference, offsets, weights)
        output: Tensor = self.output_proj(sampled)
        return output


class DeformableLayer(nn.Module):
    """Deformable self-attention and feed-forward, post-norm, ReLU, no dropout."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.attention = DeformableAttention(config.hidden, config.heads)
        self.norm1 = nn.LayerNorm(config.hidden)
        self.linear1 = nn.Linear(config.hidden, config.pixel_ffn)
        self.linear2 = nn.Linear(config.pixel_ffn, config.hidden)
        self.norm2 = nn.LayerNorm(config.hidden)

    def forward(
        self, x: Tensor, positions: Tensor, reference: Tensor, shapes: list[tuple[int, int]]
    ) -> Tensor:
        """``x [I, N, c]``, ``positions [N, c]`` to ``[I, N, c]``."""
        x = self.norm1(x + self.attention(x + positions, x, reference, shapes))
        normed: Tensor = self.norm2(x + self.linear2(self.linear1(x).relu()))
        return normed


class PixelDecoder(nn.Module):
    """res2..res5 to mask features ``[I, c, S/4, S/4]`` and three maps ``[I, c, ...]`` at strides 32, 16, 8.

    Args:
        config: widths and depths.
        widths: channels of res2..res5.
        sides: sides of res2..res5 for the model's image size; position codes are made once for them.
    """

    codes: Tensor
    reference: Tensor

    def __init__(self, config: DecoderConfig, widths: list[int], sides: list[int]) -> None:
        super().__init__()
        hidden = config.hidden
        self.checkpointing = False
        self.shapes = [(side, side) for side in reversed(sides[1:])]
        self.input_proj = nn.ModuleList(_projection(w, hidden) for w in reversed(widths[1:]))
        self.level_embed = nn.Parameter(torch.randn(_LEVELS, hidden))
        self.layers = nn.ModuleList(DeformableLayer(config) for _ in range(config.pixel_layers))
        self.lateral = nn.Sequential(
            nn.Conv2d(widths[0], hidden, 1),
            nn.GroupNorm(_GROUPS, hidden),
            nn.ReLU() if config.lateral_relu else nn.Identity(),
        )
        self.output = nn.Sequential(
            nn.Conv2d(hidden, hidden, 3, padding=1), nn.GroupNorm(_GROUPS, hidden), nn.ReLU()
        )
        self.mask_features = nn.Conv2d(hidden, hidden, 1)
        self.position = PositionFeatures(hidden) if config.coordinates else None
        codes = [sine_positions(hidden, h, w).flatten(1).T for h, w in self.shapes]
        self.register_buffer("codes", torch.cat(codes), persistent=False)
        references = [_reference(h, w) for h, w in self.shapes]
        self.register_buffer("reference", torch.cat(references), persistent=False)

    def forward(self, features: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Mask features, and the three levels from coarse to fine."""
        res2, *rest = features
        projected = [p(f) for p, f in zip(self.input_proj, reversed(rest), strict=True)]
        x = torch.cat([p.flatten(2).transpose(1, 2) for p in projected], dim=1)
        counts = [h * w for h, w in self.shapes]
        level = torch.cat([e.expand(n, -1) for e, n in zip(self.level_embed, counts, strict=True)])
        positions = self.codes.to(x.dtype) + level
        reference = self.reference
        for layer in self.layers:
            if self.checkpointing and self.training:
                x = checkpoint(layer, x, positions, reference, self.shapes, use_reentrant=False)
            else:
                x = layer(x, positions, reference, self.shapes)
        levels = [
            part.transpose(1, 2).unflatten(2, shape)
            for part, shape in zip(x.split(counts, dim=1), self.shapes, strict=True)
        ]
        finest = nn.functional.interpolate(
            levels[-1], size=res2.shape[-2:], mode="bilinear", align_corners=False
        )
        mask_features = self.mask_features(self.output(self.lateral(res2) + finest))
        if self.position is not None:
            mask_features = mask_features + self.position(mask_features)
        return mask_features, levels


class PositionFeatures(nn.Module):
    """A learned function of the position: two layers on (x, y), added to every image's mask features.

    A mask is the product of a query with the mask features, so what a query can say about where it means
    must be in them. Not every encoder brings positions along.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(2, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, hidden, 1))

    def forward(self, like: Tensor) -> Tensor:
        """``[1, hidden, h, w]`` on the grid of ``like [I, hidden, h, w]``."""
        features: Tensor = self.layers(coordinate_grid(like))
        return features


def _projection(channels: int, hidden: int) -> nn.Sequential:
    convolution = nn.Conv2d(channels, hidden, 1)
    nn.init.xavier_uniform_(convolution.weight)
    assert convolution.bias is not None
    nn.init.zeros_(convolution.bias)
    return nn.Sequential(convolution, nn.GroupNorm(_GROUPS, hidden))


def _reference(height: int, width: int) -> Tensor:
    ys, xs = torch.meshgrid(
        (torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing="ij"
    )
    return torch.stack([xs.flatten(), ys.flatten()], -1)
