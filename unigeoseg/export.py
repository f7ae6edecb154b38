"""A model on disk: ``config.json``, ``model.safetensors``, ``tokenizer.json``; no DeepSpeed, no Ray.

A language model that came from a Hugging Face folder leaves its architecture in ``language/config.json``, so
that the export needs that folder no more.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from unigeoseg.build import build_model
from unigeoseg.config import ModelConfig
from unigeoseg.errors import UserError
from unigeoseg.model import UniGeoSeg
from unigeoseg.modules.causal_lm import shapes_only
from unigeoseg.modules.undrawn import WithoutDraws
from unigeoseg.released.folder import is_released, load_released
from unigeoseg.samples.tokens import Tokenizer, load_tokenizer
from unigeoseg.weights.tied import apart

CONFIG, WEIGHTS = "config.json", "model.safetensors"
LANGUAGE = "language"
FORMAT = 1


def save_export(
    folder: str | Path,
    model: UniGeoSeg,
    tokenizer: Tokenizer,
    note: dict[str, Any] | None = None,
    seen_at: dict[str, Any] | None = None,
) -> None:
    """Writes a model that :func:`load_export` reads with one call.

    Args:
        folder: made if needed; files of the same names are replaced.
        model: its parameters are saved in float32.
        tokenizer: saved beside it.
        note: anything worth keeping (run, step); not read back.
        seen_at: at which resolution the model saw its training pictures: ``shrink``, pixels of a picture's
            side for one of the model's, low, middle and high; ``gsd``, metres of the model's pixel, low and
            high.
    """
    state = {name: t.detach().float().cpu().contiguous() for name, t in model.state_dict().items()}
    write_export(folder, state, model.config, tokenizer, note, seen_at)


def write_export(
    folder: str | Path,
    state: dict[str, torch.Tensor],
    config: ModelConfig,
    tokenizer: Tokenizer,
    note: dict[str, Any] | None = None,
    seen_at: dict[str, Any] | None = None,
) -> None:
    """As :func:`save_export`, from a state dict (for weights that were gathered from ZeRO shards)."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(folder)
    config = _own_language(config, folder)
    save_file(apart(state), str(folder / WEIGHTS))
    content = {
        "format": FORMAT,
        "model": config.to_dict(),
        "vocab_size": vocab_size(state, tokenizer.vocab_size),
        "note": note or {},
        **({"seen_at": seen_at} if seen_at else {}),
    }
    (folder / CONFIG).write_text(json.dumps(content, indent=2) + "\n")


def vocab_size(state: Mapping[str, torch.Tensor], default: int) -> int:
    """Rows of the embedding in a state dict: a checkpoint's may be more than its tokenizer's ids."""
    rows = [len(t) for name, t in state.items() if name.endswith("embed_tokens.weight")]
    return rows[0] if rows else default


def load_export(folder: str | Path, device: str | torch.device = "cpu") -> tuple[UniGeoSeg, Tokenizer]:
    """The model, in eval mode, and its tokenizer; a released checkpoint's folder is read as well.

    Raises:
        UserError: a file is missing, damaged, or of other sizes than the configuration says.
    """
    folder = Path(folder)
    if is_released(folder):
        return load_released(folder, device)[:2]
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise UserError(f"{folder} is not an export: {name} is missing (give a run's export/ folder)")
    try:
        content = json.loads((folder / CONFIG).read_text())
        config = ModelConfig.from_dict(content["model"])
        if config.language.path is not None:
            config = _with_language(config, str(folder / config.language.path))
        with shapes_only(), WithoutDraws():
            model = build_model(config, content["vocab_size"])
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise UserError(f"{folder / CONFIG} is not a configuration of this version ({error})") from error
    tokenizer = load_tokenizer(folder, config.mode)
    try:
        state = load_file(str(folder / WEIGHTS), device=str(device))
        model.load_state_dict(state)
    except Exception as error:  # safetensors and torch each raise their own kinds
        raise UserError(f"{folder / WEIGHTS} does not fit its configuration: {error}") from error
    return model.to(device).eval(), tokenizer


def _own_language(config: ModelConfig, folder: Path) -> ModelConfig:
    """Copies the architecture of a language model given by path into the export."""
    if config.language.path is None:
        return config
    source = Path(config.language.path).expanduser() / CONFIG
    try:
        content = source.read_bytes()
    except OSError as error:
        raise UserError(f"the language model's {source} cannot be read any more ({error})") from error
    (folder / LANGUAGE).mkdir(exist_ok=True)
    (folder / LANGUAGE / CONFIG).write_bytes(content)
    return _with_language(config, LANGUAGE)


def _with_language(config: ModelConfig, path: str) -> ModelConfig:
    return dataclasses.replace(config, language=dataclasses.replace(config.language, path=path))
