"""Reading pickles without running what is in them.

A pickle is a program. This reader lets it build dictionaries, lists, strings, numbers and NumPy arrays of
numbers, which is all that a detectron2 model-zoo file or a data set's table of references holds, and refuses
every other name before anything is called.
"""

import io
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from unigeoseg.errors import UserError

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
