"""Reading checkpoint pickles without running what is in them.

A pickle is a program. This reader lets it build dictionaries, lists, strings, numbers and NumPy arrays of
numbers, which is all that a detectron2 model-zoo file holds, and refuses every other name before anything is
called. Files of ``torch.save`` go through torch's own weights-only reader.
"""

import io
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unigeoseg.errors import UserError

_OLD_TORCH = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
_PLAIN_KINDS = "biufc"  # bool, integers, floats, complex: no objects, no records


#: What the name ``numpy.ndarray`` becomes: only :func:`_empty_array` knows it, and it cannot be called.
_ARRAY = object()


class _Refused(Exception):
    """A name that a checkpoint has no business with."""


def _empty_array(kind: Any, shape: Any, code: Any) -> Any:
    """What a pickled array starts from; its content comes later, of the size that the file really has."""
    if kind is not _ARRAY or tuple(shape) != (0,):
        raise _Refused("an array that is not plain")
    return np.ndarray.__new__(np.ndarray, (0,), np.int8)


def _dtype(code: Any, *flags: Any) -> Any:
    made = np.dtype(str(code) if isinstance(code, bytes | str) else "O")
    if made.kind not in _PLAIN_KINDS:
        raise _Refused(f"an array of type {made}")
    return made


def _scalar(dtype: Any, data: Any = b"") -> Any:
    if not isinstance(dtype, np.dtype) or dtype.kind not in _PLAIN_KINDS or not isinstance(data, bytes | str):
        raise _Refused("a number that is not plain")
    raw = data.encode("latin1") if isinstance(data, str) else data
    return np.frombuffer(raw, dtype, count=1)[0]


def _frombuffer(data: Any, dtype: Any, shape: Any, order: Any) -> Any:
    """How protocol 5 writes arrays."""
    if not isinstance(dtype, np.dtype) or dtype.kind not in _PLAIN_KINDS:
        raise _Refused("an array that is not plain")
    return np.frombuffer(data, dtype).reshape(shape, order=order)


def _latin1(text: Any, encoding: Any = "latin1") -> bytes:
    """Protocol 2 writes bytes as text in this encoding."""
    if encoding not in ("latin1", "latin-1") or not isinstance(text, str):
        raise _Refused(f"text in the encoding {encoding!r}")
    return text.encode("latin1")


_ALLOWED: dict[tuple[str, str], Any] = (
    {
        ("numpy", "ndarray"): _ARRAY,
        ("numpy", "dtype"): _dtype,
        ("collections", "OrderedDict"): OrderedDict,
        ("_codecs", "encode"): _latin1,
    }
    | {
        (module, name): made
        for module in ("numpy.core.multiarray", "numpy._core.multiarray")
        for name, made in (("_reconstruct", _empty_array), ("scalar", _scalar))
    }
    | {(module, "_frombuffer"): _frombuffer for module in ("numpy.core.numeric", "numpy._core.numeric")}
)


class _RestrictedUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for an allowed name; all others are refused."""
        try:
            allowed: Any = _ALLOWED[module, name]
        except KeyError:
            raise _Refused(f"{module}.{name}") from None
        return allowed

    def persistent_load(self, pid: Any) -> Any:
        """Objects outside the file are refused."""
        raise _Refused("an object outside the file")


def read_pickle(path: str | Path) -> Any:
    """The content of a pickle of dictionaries and arrays; nothing in the file is executed.

    Raises:
        UserError: the file cannot be read, names anything but plain data, or is damaged.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    return parse_pickle(data, str(path))


def parse_pickle(data: bytes, name: str) -> Any:
    """As :func:`read_pickle`, from bytes; ``name`` is the file's in messages.

    Raises:
        UserError: the pickle names anything but plain data, or is damaged.
    """
    try:
        return _RestrictedUnpickler(io.BytesIO(data), encoding="latin1").load()
    except _Refused as error:
        raise UserError(
            f"{name} is refused: as a pickle it asks for {error}, which plain data never needs and which "
            "could run code; nothing was executed. Get the file from its authors, or as safetensors"
        ) from error
    except Exception as error:  # a damaged pickle raises nearly anything
        raise UserError(
            f"{name} is no readable pickle ({type(error).__name__}: {error}); copy it again"
        ) from error


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
