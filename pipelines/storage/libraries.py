"""The libraries of the extra ``map``, imported when a map is made or vector labels are read."""

import importlib
from typing import Any

from unigeoseg.errors import UserError

#: What the extra installs.
_NAMES = ("shapely", "pyproj", "geopandas", "pyogrio")


def library(name: str) -> Any:
    """A module of one of the extra's libraries.

    Args:
        name: such as ``shapely`` or ``pyproj.database``.

    Raises:
        UserError: it is not installed; says how to.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"{name.partition('.')[0]} is not installed, which maps and vector files need: in the checkout, "
            f"pip install '.[map]' (the extra map: {', '.join(_NAMES)})"
        ) from error


def check_libraries() -> None:
    """Refuses to begin what could not be finished.

    Raises:
        UserError: a library is not installed.
    """
    for name in _NAMES:
        library(name)
