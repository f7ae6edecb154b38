"""The documents of a map, each there whole or not at all."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unigeoseg.errors import UserError

MAP = "map.json"


def finished(folder: Path) -> dict[str, Any]:
    """``map.json`` of a finished map.

    Args:
        folder: of the map.

    Raises:
        UserError: there is none.
    """
    if not (folder / MAP).is_file():
        raise UserError(f"{folder} holds no finished map: give the folder of one, with {MAP}")
    about: dict[str, Any] = json.loads((folder / MAP).read_text(encoding="utf-8"))
    return about


def write_document(path: Path, content: Mapping[str, Any]) -> None:
    """Writes JSON.

    Raises:
        UserError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}.part")
        draft.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        raise UserError(f"cannot write to --out {path.parent}: {error}; choose another folder") from error
