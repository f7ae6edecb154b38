"""The attention of packed tokens, among those of ``transformers``."""

from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from unigeoseg.modules.packing import Packing

#: Name of the attention in ``transformers``; no mask function belongs to it, so no mask is made.
PACKED = "unigeoseg_packed"


def takes_packing(language: Any) -> bool:
    """Whether a Hugging Face causal LM mixes tokens by plain causal attention alone."""
    config = language.config
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    plain = kinds == {"full_attention"} and not getattr(config, "sliding_window", None)
    return plain and config._attn_implementation in ("sdpa", PACKED)


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    packing: Packing | None = None,
    **settings: Any,
) -> tuple[Tensor, None]:
    """Causal attention of tokens in a row, as ``transformers`` calls it; without ``packing`` its own.

    ``query, key, value [1, heads, T, e]`` to ``[1, T, heads, e]``.
    """
    if packing is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **settings)
    apart = (packing.unpack(t.transpose(1, 2)).transpose(1, 2) for t in (query, key, value))
    read, _ = sdpa_attention_forward(module, *apart, attention_mask=None, **settings)  # [B, L, heads, e]
    return read.flatten(0, 1).index_select(0, packing.first)[None], None


AttentionInterface.register(PACKED, packed_attention)
