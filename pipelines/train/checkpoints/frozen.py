"""Weights that training leaves alone: written once a run and named by their content."""

import hashlib
import logging
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pipelines.runs.folder import RunFolder
from unigeoseg.errors import UserError
from unigeoseg.weights.tied import apart

logger = logging.getLogger(__name__)
FROZEN = "frozen"


def frozen_tensors(model: nn.Module) -> dict[str, Tensor]:
    """What of a model's state no optimizer changes: frozen parameters and buffers, by name."""
    trained = {name for name, p in model.named_parameters(remove_duplicate=False) if p.requires_grad}
    return {name: t.detach() for name, t in model.state_dict().items() if name not in trained}


def content_hash(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def write_frozen(run: RunFolder, tensors: dict[str, Tensor]) -> dict[str, Any] | None:
    """Writes the frozen weights of a run, if they are not there yet.

    Args:
        run: where.
        tensors: from :func:`frozen_tensors`, on the CPU.

    Returns:
        What a checkpoint says about them, ``{"file", "content"}``; ``None`` where nothing is frozen.
    """
    if not tensors:
        return None
    content = content_hash(tensors)
    name = f"{FROZEN}/{content[:16]}.safetensors"
    if not run.exists(name):
        path = run.local(name)
        partial = path.with_suffix(".partial")
        save_file(apart(tensors), str(partial))
        partial.replace(path)  # whole or not there
        run.publish(name)
        if run.remote:
            path.unlink()
    return {"file": name, "content": content}


def read_frozen(run: RunFolder, entry: dict[str, Any]) -> dict[str, Tensor]:
    """The frozen weights that a checkpoint names.

    Raises:
        UserError: they are missing or changed.
    """
    name = entry["file"]
    if not run.exists(name) or not run.fetch(name):
        raise UserError(f"{run.path}/{name} is missing: the checkpoints' frozen weights are in it")
    tensors: dict[str, Tensor] = load_file(str(run.base / name))
    if content_hash(tensors) != entry["content"]:
        raise UserError(
            f"{run.path}/{name} is damaged: its content is not what the checkpoint names; bring it back from "
            "a copy, or start a new run"
        )
    return tensors


def restore_frozen(model: nn.Module, run: RunFolder, entry: dict[str, Any] | None) -> None:
    """Makes a freshly built model's frozen weights those that a run started with.

    They are normally the same already; a model file or a library that changed since makes them differ.

    Raises:
        UserError: they are missing or damaged, or belong to another model.
    """
    present = frozen_tensors(model)
    if entry is None or not present or content_hash(present) == entry["content"]:
        return
    logger.warning(
        "the frozen weights that this start made differ from the run's own (init, or a library, has "
        "changed); the run's are used, from %s/%s",
        run.path,
        entry["file"],
    )
    tensors = read_frozen(run, entry)
    if tensors.keys() != present.keys() or any(tensors[k].shape != present[k].shape for k in present):
        raise UserError(f"{run.path}/{entry['file']} does not fit this model's frozen weights")
    for name, tensor in present.items():
        tensor.copy_(tensors[name])
    _forget(run, entry["file"])


def _forget(run: RunFolder, name: str) -> None:
    if run.remote:
        Path(run.base / name).unlink(missing_ok=True)
