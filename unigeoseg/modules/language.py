"""The causal language model: any Hugging Face causal LM, driven by embeddings."""

from typing import Any

from torch import Tensor, nn

from unigeoseg.config import LanguageConfig
from unigeoseg.modules.causal_lm import build_causal_lm
from unigeoseg.modules.packed_attention import PACKED, takes_packing
from unigeoseg.modules.packing import Packing
from unigeoseg.modules.where import Labelled


class LanguageModel(nn.Module):
    """Embeddings in, final hidden states out; logits only where they are asked for.

    Padding stands on the right and attention is causal, so no real token ever sees padding and no padding
    mask is needed: the fastest SDPA path, and results that do not depend on the batch.
    """

    def __init__(self, config: LanguageConfig, vocab_size: int) -> None:
        super().__init__()
        self.model: Any = build_causal_lm(config, vocab_size)
        self.model.config.use_cache = False

    @property
    def width(self) -> int:
        """Hidden size d."""
        return int(self.model.config.hidden_size)

    def embed(self, input_ids: Tensor) -> Tensor:
        """One gather for the whole batch: ``[B, L]`` to ``[B, L, d]``."""
        embedded: Tensor = self.model.get_input_embeddings()(input_ids)
        return embedded

    def forward(
        self, embeddings: Tensor, attention_mask: Tensor | None = None, packing: Packing | None = None
    ) -> Tensor:
        """Hidden states after the final norm, ``[B, L, d]``.

        Args:
            embeddings: ``[B, L, d]``.
            attention_mask: ``[B, L]`` hides positions.
            packing: of the batch: each token is computed once. The states of padding are then some token's.
        """
        backbone = self.model.get_decoder()
        if packing is not None and attention_mask is None and takes_packing(self.model):
            self.model.config._attn_implementation = PACKED
            row: Tensor = backbone(
                inputs_embeds=packing.pack(embeddings),
                position_ids=packing.positions,
                use_cache=False,
                packing=packing,
            ).last_hidden_state
            return packing.unpack(row)
        if self.model.config._attn_implementation == PACKED:  # for which the library makes no masks
            self.model.config._attn_implementation = "sdpa"
        states: Tensor = backbone(
            inputs_embeds=embeddings, attention_mask=attention_mask, use_cache=False
        ).last_hidden_state
        return states

    def loss(self, states: Tensor, labelled: Labelled) -> Tensor:
        """Cross-entropy per sample, float32 ``[B]``: the mean over the sample's labelled tokens.

        A sample without labels gives 0.
        """
        return self.loss_sums(states, labelled) / labelled.counts.clamp(min=1)

    def loss_sums(self, states: Tensor, labelled: Labelled) -> Tensor:
        """Summed cross-entropy float32 ``[B]``; see :meth:`loss`."""
        chosen = states.flatten(0, 1).index_select(0, labelled.states)
        logits = self.model.get_output_embeddings()(chosen)
        losses = nn.functional.cross_entropy(logits.float(), labelled.targets, reduction="none")
        return losses.new_zeros(len(labelled.counts)).index_add(0, labelled.rows, losses)
