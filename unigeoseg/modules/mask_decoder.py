"""Mask2Former's masked-attention decoder for one query per instruction (Cheng et al. 2022).

B queries over I images: level maps are gathered by ``image_index``. With one
query, self-attention is its value and output projections, exactly.
"""

import math

import torch
from torch import Tensor, nn

from unigeoseg.config import DecoderConfig
from unigeoseg.errors import UserError
from unigeoseg.modules.pixel_decoder import PositionFeatures, sine_positions
from unigeoseg.modules.prompt_maps import PromptWeights, prompt_maps

_LEVELS = 3


class MaskedCrossAttention(nn.Module):
    """The query reads the positions that its last mask covers; post-norm.

    With one query per instruction the products can be taken in the cheap order: q (K x)^T = (q K) x^T and
    a (V x) = (a x) V^T, so no position is projected. K's bias adds the same to every score of a head and
    cancels in the softmax; it gets its zero gradient all the same.
    """

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(hidden, hidden) for _ in range(4))
        self.norm = nn.LayerNorm(hidden)

    def forward(self, query: Tensor, keys: Tensor, values: Tensor, open_mask: Tensor) -> Tensor:
        """``query [B, c]``, ``keys, values [B, N, c]``, ``open_mask [B, N]`` bool to ``[B, c]``."""
        q = self.q_proj(query).unflatten(-1, (self.heads, -1))  # [B, h, e]
        k_weight, v_weight = (p.weight.unflatten(0, (self.heads, -1)) for p in (self.k_proj, self.v_proj))
        turned = torch.einsum("bhe,hec->bhc", q, k_weight)
        shift = (q * self.k_proj.bias.unflatten(0, (self.heads, -1))).sum(-1, keepdim=True)
        scores = turned @ keys.transpose(1, 2) + shift
        scores = (scores / math.sqrt(q.shape[-1])).float().masked_fill(~open_mask[:, None], float("-inf"))
        read = scores.softmax(-1).to(values.dtype) @ values  # [B, h, c]
        read = torch.einsum("bhc,hec->bhe", read, v_weight).flatten(1) + self.v_proj.bias
        normed: Tensor = self.norm(query + self.out_proj(read))
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

    def forward(self, query: Tensor, keys: Tensor, values: Tensor, open_mask: Tensor) -> Tensor:
        """``query [B, c]`` to ``[B, c]``."""
        query = self.cross(query, keys, values, open_mask)
        query = self.self_norm(query + self.self_out(self.self_value(query)))
        normed: Tensor = self.norm(query + self.linear2(self.linear1(query).relu()))
        return normed


def mask_embedding(hidden: int) -> nn.Sequential:
    """The three layers between a query and its mask's embedding."""
    return nn.Sequential(
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
    )


def prior_bias(share: float) -> nn.Parameter | None:
    """The start of a bias on the mask logits, the log-odds of ``share``; ``None`` for a share of 0.

    Raises:
        UserError: no share.
    """
    if not 0 <= share < 1:
        raise UserError(
            f"model.decoder.prior={share} is no share of foreground: give one from 0 (off) to below 1"
        )
    return nn.Parameter(torch.tensor(math.log(share / (1 - share)))) if share else None


def keep_position_codes(module: nn.Module, hidden: int, sides: list[int]) -> list[tuple[int, int]]:
    """Makes each level's position codes buffers ``codes0``, ... of a module; the levels' shapes."""
    shapes = [(side, side) for side in reversed(sides[1:])]
    for level, (height, width) in enumerate(shapes):
        codes = sine_positions(hidden, height, width).flatten(1).T
        module.register_buffer(f"codes{level}", codes, persistent=False)
    return shapes


class MaskDecoder(nn.Module):
    """Query ``[B, c]`` to ``layers + 1`` mask predictions ``[P, B, S/4, S/4]``, the last one the answer."""

    def __init__(self, config: DecoderConfig, sides: list[int]) -> None:
        super().__init__()
        hidden = config.hidden
        self.layers = nn.ModuleList(MaskDecoderLayer(config) for _ in range(config.mask_layers))
        self.level_embed = nn.Parameter(torch.randn(_LEVELS, hidden))
        self.norm = nn.LayerNorm(hidden)
        self.mask_embed = mask_embedding(hidden)
        self.shapes = keep_position_codes(self, hidden, sides)
        self.bias = prior_bias(config.prior)
        count = _LEVELS if config.coordinates else 0
        self.positions = nn.ModuleList(PositionFeatures(hidden) for _ in range(count))
        self.prompts = PromptWeights(hidden) if config.prompt_maps else None

    def forward(
        self,
        query: Tensor,
        mask_features: Tensor,
        levels: list[Tensor],
        index: Tensor,
        coordinates: Tensor | None = None,
        given: Tensor | None = None,
    ) -> Tensor:
        """All predictions as logits.

        Args:
            query: ``[B, c]``.
            mask_features: ``[I, c, S/4, S/4]``.
            levels: three maps ``[I, c, h, w]``, coarse to fine.
            index: ``[B]``, the image of each query.
            coordinates: float32 ``[B, 6]``, box or points of each, as in a batch; with ``prompt_maps``.
            given: bool ``[B, 7]``, which numbers are given, and last whether they are a box; the same.
        """
        memory = []
        for level, feature in enumerate(levels):
            if self.positions:  # so that a query learns where it has looked, not only what is there
                feature = feature + self.positions[level](feature)
            values = feature.flatten(2).transpose(1, 2) + self.level_embed[level]
            keys = values + getattr(self, f"codes{level}").to(values.dtype)
            memory.append((keys.index_select(0, index), values.index_select(0, index)))
        features = mask_features.index_select(0, index)
        small = [maps.index_select(0, index) for maps in self._small_features(mask_features)]
        *level_maps, mask_maps = self._prompt_maps(coordinates, given, features)
        embeddings, weights = [], []
        for number, layer in enumerate([*self.layers, None]):
            normed = self.norm(query)
            embedding, weight = self.mask_embed(normed), self._prompt_weight(normed)
            embeddings.append(embedding)
            weights.append(weight)
            if layer is not None:
                level = number % _LEVELS
                open_mask = self._open(embedding, small[level], [weight], level_maps[level])
                query = layer(query, *memory[level], open_mask)
        predictions = torch.stack(embeddings, dim=1) @ features.flatten(2)  # [B, P, S/4 * S/4]
        added = self._added(weights, mask_maps)
        predictions = predictions if added is None else predictions + added
        return predictions.transpose(0, 1).unflatten(2, features.shape[-2:])

    def _prompt_weight(self, normed: Tensor) -> Tensor | None:
        return None if self.prompts is None else self.prompts(normed)

    def _prompt_maps(
        self, coordinates: Tensor | None, given: Tensor | None, features: Tensor
    ) -> list[Tensor | None]:
        """The drawn prompts on each level's grid, and last on that of the masks; ``None`` without them."""
        shapes = [*self.shapes, (features.shape[-2], features.shape[-1])]
        if self.prompts is None:
            return [None] * len(shapes)
        if coordinates is None or given is None:
            raise ValueError("a decoder with prompt_maps needs the coordinates of its instructions")
        return [prompt_maps(coordinates, given, shape).to(features.dtype) for shape in shapes]

    def _added(self, weights: list[Tensor | None], maps: Tensor | None) -> Tensor | None:
        """What comes to the logits of each prediction beside its embedding, ``[B, P, N]`` or a number.

        Args:
            weights: of each prediction, ``[B, MAPS]``; none without maps.
            maps: ``[B, MAPS, N]``; ``None``: nothing is drawn.
        """
        if maps is None:
            return self.bias
        drawn = torch.stack([w for w in weights if w is not None], dim=1) @ maps
        return drawn if self.bias is None else drawn + self.bias

    @torch.no_grad()
    def _small_features(self, features: Tensor) -> list[Tensor]:
        """Mask features on each level's grid ``[I, c, h * w]``: resizing them once is resizing every mask."""
        return [shrink(features, shape).flatten(2) for shape in self.shapes]

    @torch.no_grad()
    def _open(
        self, embedding: Tensor, small: Tensor, weights: list[Tensor | None], maps: Tensor | None
    ) -> Tensor:
        """Where attention is allowed: sigmoid >= 0.5 on the level's grid; a fully blocked query sees all."""
        logits, added = embedding[:, None] @ small, self._added(weights, maps)
        allowed = ((logits if added is None else logits + added) >= 0).squeeze(1)
        return allowed | ~allowed.any(1, keepdim=True)


def shrink(maps: Tensor, shape: tuple[int, int]) -> Tensor:
    """Bilinear resize of ``[B, c, H, W]`` to a smaller ``shape``, centres aligned as in ``interpolate``.

    By an even factor it is the mean of the four pixels around each new centre, read as such: PyTorch's kernel
    for GPUs has a thread for each pixel of the (small) result alone and takes tens of times as long, and its
    mean over two of six dimensions takes several times as long on a CPU as three sums.
    """
    height, width = maps.shape[-2:]
    down, across = height // shape[0], width // shape[1]
    if (down * shape[0], across * shape[1]) != (height, width) or down % 2 or across % 2:
        return nn.functional.interpolate(maps, size=shape, mode="bilinear", align_corners=False)
    above, left = down // 2 - 1, across // 2 - 1
    corners = [maps[..., above + y :: down, left + x :: across] for y in (0, 1) for x in (0, 1)]
    return sum(corners[1:], corners[0]) / 4
