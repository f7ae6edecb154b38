"""The causal language model: any Hugging Face causal LM, driven by embeddings."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PhiConfig, PhiForCausalLM

from unigeoseg.config import LanguageConfig
from unigeoseg.errors import UserError


class LanguageModel(nn.Module):
    """Embeddings in, final hidden states out; logits only where they are asked for.

    Padding stands on the right and attention is causal, so no real token ever sees padding and no padding
    mask is needed: the fastest SDPA path, and results that do not depend on the batch.
    """

    def __init__(self, config: LanguageConfig, vocab_size: int) -> None:
        super().__init__()
        self.model: Any = _build(config, vocab_size)
        self.model.config.use_cache = False

    @property
    def width(self) -> int:
        """Hidden size d."""
        return int(self.model.config.hidden_size)

    def embed(self, input_ids: Tensor) -> Tensor:
        """One gather for the whole batch: ``[B, L]`` to ``[B, L, d]``."""
        embedded: Tensor = self.model.get_input_embeddings()(input_ids)
        return embedded

    def forward(self, embeddings: Tensor) -> Tensor:
        """Hidden states after the final norm, ``[B, L, d]``."""
        backbone = self.model.get_decoder()
        states: Tensor = backbone(inputs_embeds=embeddings, use_cache=False).last_hidden_state
        return states

    def loss(self, states: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy per sample, float32 ``[B]``: the mean over the sample's labelled tokens.

        ``labels [B, L]`` are aligned with the inputs (token t is predicted from state t - 1); -100 is
        ignored. A sample without labels gives 0.
        """
        targets = labels[:, 1:]
        rows, columns = (targets >= 0).nonzero(as_tuple=True)
        logits = self.model.get_output_embeddings()(states[rows, columns])
        losses = nn.functional.cross_entropy(logits.float(), targets[rows, columns], reduction="none")
        totals = losses.new_zeros(len(labels)).index_add(0, rows, losses)
        counts = torch.bincount(rows, minlength=len(labels)).clamp(min=1)
        return totals / counts


def _build(config: LanguageConfig, vocab_size: int) -> Any:
    if config.path is not None:
        try:
            model = AutoModelForCausalLM.from_pretrained(
                config.path, local_files_only=True, dtype=torch.float32
            )
        except (OSError, ValueError) as error:
            raise UserError(
                f"model.language.path={config.path}: no loadable Hugging Face causal LM ({error}); "
                "give a folder with config.json and its weights"
            ) from error
        if model.get_input_embeddings().num_embeddings < vocab_size:
            model.resize_token_embeddings(vocab_size)
        return model
    return PhiForCausalLM(
        PhiConfig(
            vocab_size=vocab_size,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            max_position_embeddings=config.max_positions,
            hidden_act="gelu_pytorch_tanh",  # Phi's gelu_new in one kernel
            initializer_range=config.initializer_range,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attention_dropout=0.0,
            attn_implementation="sdpa",
        )
    )
