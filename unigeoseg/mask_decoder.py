"""Mask2Former's masked-attention decoder for one query per instruction (Cheng et al. 2022).

B queries over I images: keys and values are made once per image and gathered by ``image_index``. With one
query, self-attention is its value and output projections, exactly.
"""

import torch
from torch import Tensor, nn

from unigeoseg.config import DecoderConfig
from unigeoseg.pixel_decoder import sine_positions

_LEVELS = 3


class MaskedCrossAttention(nn.Module):
    """The query reads the positions that its last mask covers; post-norm."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(hidden, hidden) for _ in range(4))
        self.norm = nn.LayerNorm(hidden)

    def forward(
        self, query: Tensor, keys: Tensor, values: Tensor, index: Tensor, open_mask: Tensor
    ) -> Tensor:
        """``query [B, c]``, ``keys, values [I, N, c]``, ``open_mask [B, N]`` bool to ``[B, c]``."""
        q = self.q_proj(query).unflatten(-1, (self.heads, -1))[:, :, None]
        k, v = (
            proj(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)[index]
            for proj, x in ((self.k_proj, keys), (self.v_proj, values))
        )
        read = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=open_mask[:, None, None])
        normed: Tensor = self.norm(query + self.out_proj(read.flatten(1)))
        return normed


class MaskDecoderLayer(nn.Module):
    """Cross-attention, self-attention of the single query, feed-forward; post-norm, ReLU, no dropout."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        hidden = config.hidden
        self.cross = MaskedCrossAttention(hidden, config.heads)
        self.self_value = nn.Linear(hidden, hidden)
        self.self_out = nn.Linear(hidden, hidden)
        self.self_norm = nn.LayerNorm(hidden)
        self.linear1 = nn.Linear(hidden, config.mask_ffn)
        self.linear2 = nn.Linear(config.mask_ffn, hidden)
        self.norm = nn.LayerNorm(hidden)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(
        self, query: Tensor, keys: Tensor, values: Tensor, index: Tensor, open_mask: Tensor
    ) -> Tensor:
        """``query [B, c]`` to ``[B, c]``."""
        query = self.cross(query, keys, values, index, open_mask)
        query = self.self_norm(query + self.self_out(self.self_value(query)))
        normed: Tensor = self.norm(query + self.linear2(self.linear1(query).relu()))
        return normed


class MaskDecoder(nn.Module):
    """Query ``[B, c]`` to ``layers + 1`` mask predictions ``[P, B, S/4, S/4]``, the last one the answer."""

    def __init__(self, config: DecoderConfig, sides: list[int]) -> None:
        super().__init__()
        hidden = config.hidden
        self.layers = nn.ModuleList(MaskDecoderLayer(config) for _ in range(config.mask_layers))
        self.level_embed = nn.Parameter(torch.randn(_LEVELS, hidden))
        self.norm = nn.LayerNorm(hidden)
        self.mask_embed = nn.Sequential(
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
        )
        self.shapes = [(side, side) for side in reversed(sides[1:])]
        for level, (height, width) in enumerate(self.shapes):
            codes = sine_positions(hidden, height, width).flatten(1).T
            self.register_buffer(f"codes{level}", codes, persistent=False)

    def forward(self, query: Tensor, mask_features: Tensor, levels: list[Tensor], index: Tensor) -> Tensor:
        """All predictions as logits.

        Args:
            query: ``[B, c]``.
            mask_features: ``[I, c, S/4, S/4]``.
            levels: three maps ``[I, c, h, w]``, coarse to fine.
            index: ``[B]``, the image of each query.
        """
        memory = []
        for level, feature in enumerate(levels):
            values = feature.flatten(2).transpose(1, 2) + self.level_embed[level]
            memory.append((values + getattr(self, f"codes{level}").to(values.dtype), values))
        own_features = mask_features.flatten(2)[index]
        side = mask_features.shape[-2:]
        predictions = [self._predict(query, own_features, side)]
        for number, layer in enumerate(self.layers):
            level = number % _LEVELS
            open_mask = self._open(predictions[-1], self.shapes[level])
            query = layer(query, *memory[level], index, open_mask)
            predictions.append(self._predict(query, own_features, side))
        return torch.stack(predictions)

    def _predict(self, query: Tensor, own_features: Tensor, side: torch.Size) -> Tensor:
        embedding = self.mask_embed(self.norm(query))[:, None]
        return torch.bmm(embedding, own_features).squeeze(1).unflatten(1, side)

    @staticmethod
    def _open(logits: Tensor, shape: tuple[int, int]) -> Tensor:
        """Where attention is allowed: sigmoid >= 0.5 on the level's grid; a fully blocked query sees all."""
        with torch.no_grad():
            small = nn.functional.interpolate(
                logits[:, None], size=shape, mode="bilinear", align_corners=False
            )
            allowed = small.flatten(1) >= 0
            return allowed | ~allowed.any(1, keepdim=True)
