"""Mask2Former's decoder with a set of queries (Cheng et al. 2022), classified by the [SEG] embedding."""

import math

import torch
from torch import Tensor, nn

from unigeoseg.config import DecoderConfig
from unigeoseg.modules.mask_decoder import keep_position_codes, mask_embedding

_LEVELS = 3


class Attention(nn.Module):
    """Multi-head attention with residual and post-norm."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(hidden, hidden) for _ in range(4))
        self.norm = nn.LayerNorm(hidden)

    def forward(
        self,
        x: Tensor,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        index: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Norm(x + Attention(query, keys, values)).

        Args:
            x: ``[B, Q, c]``.
            query: ``[B, Q, c]``.
            keys: ``[B or I, N, c]``.
            values: the same shape.
            index: ``[B]``, the row of keys and values of each query set; ``None``: its own.
            mask: bool ``[B, Q, N]``, true where attention is allowed.
        """
        q, k, v = (
            proj(t).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for proj, t in ((self.q_proj, query), (self.k_proj, keys), (self.v_proj, values))
        )
        if index is not None:
            k, v = k[index], v[index]
        allowed = None if mask is None else mask[:, None]
        read = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
        normed: Tensor = self.norm(x + self.out_proj(read.transpose(1, 2).flatten(2)))
        return normed


class QuerySetLayer(nn.Module):
    """Masked cross-attention, self-attention over the set, feed-forward; post-norm, ReLU, no dropout."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.cross = Attention(config.hidden, config.heads)
        self.own = Attention(config.hidden, config.heads)
        self.linear1 = nn.Linear(config.hidden, config.mask_ffn)
        self.linear2 = nn.Linear(config.mask_ffn, config.hidden)
        self.norm = nn.LayerNorm(config.hidden)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(
        self, x: Tensor, places: Tensor, keys: Tensor, values: Tensor, index: Tensor, mask: Tensor
    ) -> Tensor:
        """``x [B, Q, c]``, ``places [Q, c]`` to ``[B, Q, c]``; see :class:`Attention`."""
        x = self.cross(x, x + places, keys, values, index, mask)
        x = self.own(x, x + places, x + places, x)
        normed: Tensor = self.norm(x + self.linear2(self.linear1(x).relu()))
        return normed


class QuerySetDecoder(nn.Module):
    """A set of Q learned queries an instruction, each with a mask and a score for being the one meant.

    A query starts as its learned vector plus the [SEG] embedding (in PSALM the mask tokens read the
    instruction inside the language model). Its score is the scaled dot product of its class embedding with
    the [SEG] embedding.

    Args:
        config: sizes.
        sides: of res2 to res5.
        queries: Q.
    """

    def __init__(self, config: DecoderConfig, sides: list[int], queries: int) -> None:
        super().__init__()
        hidden = config.hidden
        self.content = nn.Parameter(torch.randn(queries, hidden))
        self.places = nn.Parameter(torch.randn(queries, hidden))
        self.layers = nn.ModuleList(QuerySetLayer(config) for _ in range(config.mask_layers))
        self.level_embed = nn.Parameter(torch.randn(_LEVELS, hidden))
        self.norm = nn.LayerNorm(hidden)
        self.class_embed = nn.Linear(hidden, hidden)
        self.mask_embed = mask_embedding(hidden)
        self.shapes = keep_position_codes(self, hidden, sides)

    def forward(
        self, seg: Tensor, mask_features: Tensor, levels: list[Tensor], index: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Mask logits ``[P, B, Q, S/4, S/4]`` and score logits ``[P, B, Q]``, the last P the answer.

        Args:
            seg: [SEG] embeddings ``[B, c]``.
            mask_features: ``[I, c, S/4, S/4]``.
            levels: three maps ``[I, c, h, w]``, coarse to fine.
            index: ``[B]``, the image of each instruction.
        """
        memory = []
        for level, feature in enumerate(levels):
            values = feature.flatten(2).transpose(1, 2) + self.level_embed[level]
            memory.append((values + getattr(self, f"codes{level}").to(values.dtype), values))
        features = mask_features.flatten(2)[index]
        side = mask_features.shape[-2:]
        x = self.content + seg[:, None]
        found = [self._predict(x, seg, features, side)]
        for number, layer in enumerate(self.layers):
            level = number % _LEVELS
            mask = _open(found[-1][0], self.shapes[level])
            x = layer(x, self.places, *memory[level], index, mask)
            found.append(self._predict(x, seg, features, side))
        masks, scores = zip(*found, strict=True)
        return torch.stack(masks), torch.stack(scores)

    def _predict(self, x: Tensor, seg: Tensor, features: Tensor, side: torch.Size) -> tuple[Tensor, Tensor]:
        normed = self.norm(x)
        masks = torch.bmm(self.mask_embed(normed), features).unflatten(2, side)
        scores = (self.class_embed(normed) @ seg[..., None]).squeeze(-1) / math.sqrt(seg.shape[-1])
        return masks, scores


def _open(logits: Tensor, shape: tuple[int, int]) -> Tensor:
    """Where attention is allowed, bool ``[B, Q, N]``: as in Mask2Former, a fully blocked query sees all."""
    with torch.no_grad():
        small = nn.functional.interpolate(logits, size=shape, mode="bilinear", align_corners=False)
        allowed = small.flatten(2) >= 0
        return allowed | ~allowed.any(2, keepdim=True)
