"""A released checkpoint on disk: ``config.json``, weights (safetensors or ``.bin``), tokenizer."""

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from unigeoseg.config import ModelConfig
from unigeoseg.errors import UserError
from unigeoseg.modules.undrawn import WithoutDraws
from unigeoseg.released.config import PROJECTOR, read_config
from unigeoseg.released.convert import Converted, from_released, to_released
from unigeoseg.released.layout import entries
from unigeoseg.released.model import ReleasedUniGeoSeg
from unigeoseg.samples.released_tokenizer import ReleasedTokenizer, load_released_tokenizer
from unigeoseg.samples.tokens import Tokenizer

logger = logging.getLogger(__name__)

CONFIG = "config.json"
#: What a released checkpoint holds beyond our model; kept beside an export, so that nothing is lost.
UNUSED = "released_unused.safetensors"
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_EMBEDDING = "model.embed_tokens.weight"


def is_released(folder: str | Path) -> bool:
    """Whether ``folder`` holds a released checkpoint: its ``config.json`` names an image projector."""
    path = Path(folder) / CONFIG
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and "mm_projector_type" in content


def load_released(
    folder: str | Path, device: str | torch.device = "cpu"
) -> tuple[ReleasedUniGeoSeg, ReleasedTokenizer, Converted]:
    """The model in float32 and eval mode, its tokenizer, and what its checkpoint held.

    Raises:
        UserError: a file is missing or damaged, or the tensors are not those of the released model.
    """
    tokenizer = load_released_tokenizer(folder)
    config, converted = released_weights(folder)
    with WithoutDraws():
        model = ReleasedUniGeoSeg(config, config.language.embedding_rows)
    try:
        model.load_state_dict(converted.state)
    except RuntimeError as error:
        raise UserError(f"{folder}: tensors of other sizes than the checkpoint's own ({error})") from error
    logger.info(
        "%s: %d tensors loaded, %d unused in the released code, %d buffers remade",
        folder,
        len(converted.state),
        len(converted.unused),
        len(converted.buffers),
    )
    return model.to(device).eval(), tokenizer, converted


def released_config(folder: str | Path) -> ModelConfig:
    """The configuration of a released checkpoint, without keeping its weights.

    Raises:
        UserError: as :func:`load_released`.
    """
    folder = Path(folder)
    content = _read_config(folder)
    return read_config({name: tuple(t.shape) for name, t in _tensors(folder)}, content)


def released_weights(folder: str | Path) -> tuple[ModelConfig, Converted]:
    """The configuration of a released checkpoint, and its weights in our names, float32.

    Raises:
        UserError: as :func:`load_released`.
    """
    folder = Path(folder)
    content = _read_config(folder)
    released = dict(_tensors(folder))
    config = read_config({name: tuple(t.shape) for name, t in released.items()}, content)
    return config, from_released(released, config)


def save_released(
    folder: str | Path,
    state: Mapping[str, Tensor],
    config: ModelConfig,
    tokenizer: Tokenizer,
    unused: Mapping[str, Tensor] | None = None,
) -> dict[str, int]:
    """Writes a checkpoint in the released layout.

    Args:
        folder: made if needed.
        state: our state dict.
        config: of our model, ``mode: released``.
        tokenizer: saved beside it.
        unused: see :class:`~unigeoseg.released.convert.Converted`; absent ones are written as zeros.

    Returns:
        ``{"keys", "zeros"}``: tensors written, and how many of them are zeros, in whole or in their unused
        rows, because nothing was known of them.

    Raises:
        UserError: the model is not of ``mode: released``.
    """
    if config.mode != "released":
        raise UserError(
            f"a model of mode {config.mode} cannot be written as a released checkpoint: its mathematics "
            "differs; train with --set model.mode=released"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    released = to_released(state, config, unused)
    tensors = {name: t.detach().cpu().contiguous() for name, t in released.items()}
    save_file(tensors, str(folder / _WEIGHTS[0]), metadata={"format": "pt"})
    tokenizer.save(folder)
    content = write_config(config, len(released[_EMBEDDING]))
    (folder / CONFIG).write_text(json.dumps(content, indent=2) + "\n")
    lost = {e.released for e in entries(config) if e.kind in ("unused", "last_third")} - set(unused or ())
    return {"keys": len(tensors), "zeros": len(lost)}


def write_config(config: ModelConfig, vocab_size: int) -> dict[str, Any]:
    """The ``config.json`` of a released checkpoint, what ``read_config`` reads."""
    language = config.language
    return {
        "model_type": "llava_phi",
        "vocab_size": vocab_size,
        "hidden_size": language.hidden_size,
        "intermediate_size": language.intermediate_size,
        "num_hidden_layers": language.layers,
        "num_attention_heads": language.heads,
        "max_position_embeddings": language.max_positions,
        "hidden_act": "gelu_new",
        "partial_rotary_factor": language.rotary_share,
        "rope_theta": language.rope_theta,
        "layer_norm_eps": language.norm_eps,
        "mm_projector_type": PROJECTOR,
        "mm_hidden_size": 8 * config.vision.embed_dim,
        "image_size": config.image_size,
    }


def read_unused(folder: str | Path) -> dict[str, Tensor]:
    """The tensors of :data:`UNUSED` beside an export; empty where there are none."""
    path = Path(folder) / UNUSED
    return dict(_safetensors(path)) if path.is_file() else {}


def write_unused(folder: str | Path, unused: Mapping[str, Tensor]) -> None:
    """Keeps what our model has no place for beside an export."""
    save_file({k: t.contiguous() for k, t in unused.items()}, str(Path(folder) / UNUSED))


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.is_file():
        raise UserError(f"{folder} is no checkpoint: {CONFIG} is missing")
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); copy it again") from error
    return content


def _tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Every tensor, floating-point ones in float32."""
    for path in _files(folder):
        read = _safetensors if path.suffix == ".safetensors" else _pickled
        for name, tensor in read(path):
            yield name, tensor.float() if tensor.is_floating_point() else tensor


def _files(folder: Path) -> list[Path]:
    for name in _WEIGHTS:
        index = folder / f"{name}.index.json"
        if (folder / name).is_file():
            return [folder / name]
        if index.is_file():
            parts = sorted(set(json.loads(index.read_text())["weight_map"].values()))
            lost = [part for part in parts if not (folder / part).is_file()]
            if lost:
                raise UserError(
                    f"{folder}: {len(lost)} of {len(parts)} weight files are missing ({lost[0]}, …)"
                )
            return [folder / part for part in parts]
    raise UserError(f"{folder} holds no weights: neither {' nor '.join(_WEIGHTS)}, whole or in parts")


def _safetensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    try:
        with safe_open(str(path), framework="pt") as content:
            for name in content.keys():  # noqa: SIM118 - not a mapping
                yield name, content.get_tensor(name)
    except UserError:
        raise
    except Exception as error:  # the library's own kinds
        raise UserError(f"{path} is truncated or damaged ({error}); copy it again") from error


def _pickled(path: Path) -> Iterator[tuple[str, Tensor]]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, zipfile and pickle each raise their own kinds
        raise UserError(f"{path} is damaged or holds more than tensors ({error}); not read") from error
    yield from content.items()
