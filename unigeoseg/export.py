"""A model on disk: ``config.json``, ``model.safetensors``, ``tokenizer.json``; no DeepSpeed, no Ray."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from unigeoseg.config import ModelConfig
from unigeoseg.errors import UserError
from unigeoseg.model import UniGeoSeg
from unigeoseg.tokens import Tokenizer, load_tokenizer

CONFIG, WEIGHTS = "config.json", "model.safetensors"
FORMAT = 1


def save_export(
    folder: str | Path, model: UniGeoSeg, tokenizer: Tokenizer, note: dict[str, Any] | None = None
) -> None:
    """Writes a model that :func:`load_export` reads with one call.

    Args:
        folder: made if needed; files of the same names are replaced.
        model: its parameters are saved in float32.
        tokenizer: saved beside it.
        note: anything worth keeping (run, step); not read back.
    """
    state = {name: t.detach().float().cpu().contiguous() for name, t in model.state_dict().items()}
    write_export(folder, state, model.config, tokenizer, note)


def write_export(
    folder: str | Path,
    state: dict[str, torch.Tensor],
    config: ModelConfig,
    tokenizer: Tokenizer,
    note: dict[str, Any] | None = None,
) -> None:
    """As :func:`save_export`, from a state dict (for weights that were gathered from ZeRO shards)."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(folder)
    save_file(state, str(folder / WEIGHTS))
    content = {
        "format": FORMAT,
        "model": config.to_dict(),
        "vocab_size": tokenizer.vocab_size,
        "note": note or {},
    }
    (folder / CONFIG).write_text(json.dumps(content, indent=2) + "\n")


def load_export(folder: str | Path, device: str | torch.device = "cpu") -> tuple[UniGeoSeg, Tokenizer]:
    """The model, in eval mode, and its tokenizer.

    Raises:
        UserError: a file is missing, damaged, or of other sizes than the configuration says.
    """
    folder = Path(folder)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise UserError(f"{folder} is not an export: {name} is missing (give a run's export/ folder)")
    tokenizer = load_tokenizer(folder)
    try:
        content = json.loads((folder / CONFIG).read_text())
        model = UniGeoSeg(ModelConfig.from_dict(content["model"]), content["vocab_size"])
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise UserError(f"{folder / CONFIG} is not a configuration of this version ({error})") from error
    try:
        state = load_file(str(folder / WEIGHTS), device=str(device))
        model.load_state_dict(state)
    except Exception as error:  # safetensors and torch each raise their own kinds
        raise UserError(f"{folder / WEIGHTS} does not fit its configuration: {error}") from error
    return model.to(device).eval(), tokenizer
