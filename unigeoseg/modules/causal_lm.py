"""Makes the causal language model: Phi by size, or whatever a Hugging Face folder holds."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PhiConfig, PhiForCausalLM

from unigeoseg.config import LanguageConfig
from unigeoseg.errors import UserError

logger = logging.getLogger(__name__)
_shapes_only: ContextVar[bool] = ContextVar("shapes_only", default=False)


@contextmanager
def shapes_only() -> Iterator[None]:
    """Within it, a language model given by path gets its architecture alone: its weights come from elsewhere.

    For loading exports and for counting parameters; only ``config.json`` is read.
    """
    token = _shapes_only.set(True)
    try:
        yield
    finally:
        _shapes_only.reset(token)


def build_causal_lm(config: LanguageConfig, vocab_size: int) -> Any:
    """A causal language model with at least ``vocab_size`` embeddings.

    With ``config.path``, any decoder architecture of ``transformers`` in a local folder (weights as
    safetensors or a weights-only ``.bin``), else Phi of the configured size with random weights.

    Raises:
        UserError: the folder is missing, holds no causal LM, or lacks weights.
    """
    if config.path is None:
        return _phi(config, vocab_size)
    folder = Path(config.path).expanduser()
    if not (folder / "config.json").is_file():
        raise UserError(
            f"model.language.path={config.path}: no config.json there; give a folder with a Hugging Face "
            "causal LM (nothing is downloaded)"
        )
    return _architecture(folder, vocab_size) if _shapes_only.get() else _pretrained(folder, vocab_size)


def _pretrained(folder: Path, vocab_size: int) -> Any:
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, dtype=torch.float32, output_loading_info=True
        )
    except Exception as error:  # transformers, safetensors and torch each raise their own kinds
        raise UserError(
            f"model.language.path={folder}: no loadable Hugging Face causal LM ({error}); give a folder with "
            "config.json and its weights"
        ) from error
    missing, mismatched = sorted(info["missing_keys"]), sorted(map(str, info.get("mismatched_keys", ())))
    unexpected = sorted(info["unexpected_keys"])
    if missing or mismatched or unexpected:
        names = [*missing, *mismatched, *unexpected][:5]
        raise UserError(
            f"model.language.path={folder} does not fit its own config.json: {len(missing)} weights missing, "
            f"{len(mismatched)} of other sizes, {len(unexpected)} unexpected ({', '.join(names)}, ...); "
            "copy the folder again"
        )
    logger.info(
        "%s (%s): %d tensors loaded, none missing", folder, type(model).__name__, len(model.state_dict())
    )
    if model.get_input_embeddings().num_embeddings < vocab_size:
        model.resize_token_embeddings(vocab_size)
    return model


def _architecture(folder: Path, vocab_size: int) -> Any:
    try:
        content = AutoConfig.from_pretrained(folder, local_files_only=True)
        content.vocab_size = max(content.vocab_size, vocab_size)
        return AutoModelForCausalLM.from_config(content, dtype=torch.float32)
    except Exception as error:
        raise UserError(f"{folder} describes no causal language model ({error})") from error


def _phi(config: LanguageConfig, vocab_size: int) -> Any:
    rope = {
        "rope_type": "default",
        "rope_theta": config.rope_theta,
        "partial_rotary_factor": config.rotary_share,
    }
    model = PhiForCausalLM(
        PhiConfig(
            vocab_size=vocab_size,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            max_position_embeddings=config.max_positions,
            hidden_act="gelu_pytorch_tanh",  # Phi's gelu_new in one kernel
            initializer_range=config.initializer_range,
            layer_norm_eps=config.norm_eps,
            rope_parameters=rope,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attention_dropout=0.0,
            attn_implementation="sdpa",
        )
    )
    if not config.head_bias:
        model.lm_head.register_parameter("bias", None)
    return model
