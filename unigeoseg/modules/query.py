"""From language states to the one mask query: pooling, and fusion with local vision features."""

import math

import torch
from torch import Tensor, nn

from unigeoseg.modules.tate import masked_softmax

_HEADS = 8


class InstructionPooling(nn.Module):
    """s = softmax(q H^T / sqrt d) H over the instruction's tokens, with a learned query q."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(width) * width**-0.5)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """``states [B, L, d]``, ``mask [B, L]`` to ``[B, d]``."""
        weights = masked_softmax(states @ self.query / math.sqrt(states.shape[-1]), mask)
        return (weights[:, None].to(states.dtype) @ states).squeeze(1)


class LocalVisionFusion(nn.Module):
    """D: one perceiver layer in which the instruction's latent reads the image's res5 positions.

    Pre-norm cross-attention (keys: positions and the latent itself; no biases) and feed-forward, both with
    residuals, then a final norm; as the released ``D_Projector`` without its unused latents.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm_latent = nn.LayerNorm(width)
        self.norm_vision = nn.LayerNorm(width)
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_kv = nn.Linear(width, 2 * width, bias=False)
        self.to_out = nn.Linear(width, width, bias=False)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, width, bias=False),
            nn.GELU(),
            nn.Linear(width, width, bias=False),
        )
        self.norm_out = nn.LayerNorm(width)

    def forward(self, latent: Tensor, vision: Tensor, image_index: Tensor) -> Tensor:
        """``latent [B, w]``, ``vision [I, N, w]``, ``image_index [B]`` to ``[B, w]``."""
        query_input = self.norm_latent(latent)[:, None]
        vision_kv = self.to_kv(self.norm_vision(vision))[image_index]
        keys, values = torch.cat([vision_kv, self.to_kv(query_input)], dim=1).chunk(2, dim=-1)
        attended = nn.functional.scaled_dot_product_attention(
            _split(self.to_q(query_input)), _split(keys), _split(values)
        )
        latent = latent + self.to_out(attended.transpose(1, 2).flatten(1))
        latent = latent + self.feed_forward(latent)
        normed: Tensor = self.norm_out(latent)
        return normed


def _split(x: Tensor) -> Tensor:
    return x.unflatten(-1, (_HEADS, -1)).transpose(1, 2)


class QueryBuilder(nn.Module):
    """One mask query per instruction: Linear([A(s) ; D(B(s), Linear(res5))])."""

    def __init__(self, language_width: int, vision_width: int, width: int, hidden: int) -> None:
        super().__init__()
        self.text = nn.Linear(language_width, width)
        self.latent = nn.Linear(language_width, width)
        self.vision = nn.Linear(vision_width, width)
        self.fusion = LocalVisionFusion(width)
        self.out = nn.Linear(2 * width, hidden)

    def forward(self, state: Tensor, res5: Tensor, image_index: Tensor) -> Tensor:
        """``state [B, d]``, ``res5 [I, C, h, w]``, ``image_index [B]`` to ``[B, hidden]``."""
        vision = self.vision(res5.flatten(2).transpose(1, 2))
        local = self.fusion(self.latent(state), vision, image_index)
        query: Tensor = self.out(torch.cat([self.text(state), local], dim=-1))
        return query
