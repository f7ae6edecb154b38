"""Named tensors from what a model zoo or ``torch.save`` wrote; nothing in the file is executed."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unigeoseg.errors import UserError
from unigeoseg.weights.pickle_file import read_pickle

_OLD_TORCH = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Tensors by name from a detectron2 ``.pkl`` or a ``torch.save`` file.

    They may stand under ``model``, ``state_dict`` or ``state_dict_ema``.

    Raises:
        UserError: refused or damaged, as :func:`read_pickle`, or something else than named tensors.
    """
    content = _read_torch(path) if _is_torch(path) else read_pickle(path)
    inner = content
    for key in ("state_dict_ema", "state_dict", "model"):
        if isinstance(inner, dict) and isinstance(inner.get(key), dict):
            inner = inner[key]
    if not isinstance(inner, dict) or not inner:
        raise UserError(f"{path} holds no dictionary of parameters; give a model checkpoint")
    tensors = {}
    for name, value in inner.items():
        if not isinstance(name, str) or not isinstance(value, np.ndarray | Tensor | np.generic):
            raise UserError(f"{path}: {str(name)[:80]!r} is no named tensor; give a model checkpoint")
        tensors[name] = value if isinstance(value, Tensor) else torch.from_numpy(np.array(value))
    return tensors


def _is_torch(path: str | Path) -> bool:
    """Whether ``torch.save`` wrote it, now (a zip) or before version 1.6 (its magic number, pickled)."""
    if zipfile.is_zipfile(path):
        return True
    try:
        with Path(path).open("rb") as file:
            return file.read(len(_OLD_TORCH)) == _OLD_TORCH
    except OSError:
        return False


def _read_torch(path: str | Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} is refused, nothing was executed: {reason}") from error
    except Exception as error:  # damaged archives raise RuntimeError, EOFError and others
        raise UserError(f"{path} is damaged or cut off ({error}); copy it again") from error
