"""Weights that the project names, and any others by reference: what they are, and where they lie here."""

import hashlib
import logging
from collections.abc import Iterable
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any

from pipelines.storage.yaml_text import load_yaml
from pipelines.weights.hub import SCHEME, HubReference, cached_path, hub_files
from pipelines.weights.local_copy import local_copy
from unigeoseg.errors import UserError

logger = logging.getLogger(__name__)


def known_weights() -> list[dict[str, str]]:
    """The table: ``name``, ``reference``, ``licence``, ``source``, ``use``."""
    found: list[dict[str, str]] = load_yaml(
        files("pipelines.weights").joinpath("known_weights.yaml").read_text(encoding="utf-8")
    )
    return found


def find_weights(text: str) -> dict[str, str]:
    """An entry of the table by name, or one for a reference of the user's.

    Raises:
        UserError: neither.
    """
    table = {row["name"]: row for row in known_weights()}
    if text in table:
        return table[text]
    if text.startswith(SCHEME):
        reference = str(HubReference.parse(text))
        by_reference = {row["reference"]: row for row in table.values()}
        unnamed = {"name": reference, "reference": reference, "licence": "", "source": "", "use": ""}
        return by_reference.get(reference, unnamed)
    close = get_close_matches(text, table, n=2)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    raise UserError(
        f"{text} is no known weights: {hint}There are {', '.join(table)}; or give {SCHEME}ORG/NAME"
    )


def list_weights(rows: Iterable[dict[str, str]]) -> dict[str, Any]:
    """``{"weights": [{"name", "reference", "bytes", "licence", "source", "sha256", "path", "use"}]}``.

    Nothing is asked of the network: ``path`` is ``None`` where the cache has nothing, and ``bytes`` counts
    what is there.
    """
    return {"weights": [_local(row) for row in rows]}


def show_weights(text: str) -> dict[str, Any]:
    """The same of one, with size, licence and checksums as the hub tells them now, and ``files``.

    Raises:
        UserError: it is unknown, or nobody answers.
    """
    return {"weights": [_told(find_weights(text))]}


def _told(row: dict[str, str]) -> dict[str, Any]:
    told, licence = hub_files(row["reference"])
    sums = [f.sha256 for f in told if f.sha256]
    shown = _local(row) | {
        "bytes": sum(f.bytes for f in told),
        "sha256": sums[0] if len(sums) == 1 else None,
        "files": [{"name": f.name, "bytes": f.bytes, "sha256": f.sha256} for f in told],
    }
    shown["licence"] = shown["licence"] or licence or ""
    return shown


def fetch_weights(text: str) -> dict[str, Any]:
    """Fetches one into the hub's cache, checks it, and says where it lies.

    What the cache has already is given without the hub too, then unchecked (``sha256`` is ``None``).

    Raises:
        UserError: it is unknown, cannot be fetched, or a file is not what the hub says.
    """
    row = find_weights(text)
    before = cached_path(row["reference"])
    path = local_copy(row["reference"])
    try:
        shown = _told(row)
    except UserError as error:
        if before is None:
            raise
        logger.warning("%s is in the cache; its checksum was not compared: %s", text, error)
        return {"weights": [_local(row) | {"files": []}]}
    for file in shown["files"]:
        here = path if path.is_file() else path / file["name"]
        if file["sha256"] and here.exists() and (found := _sha256(here)) != file["sha256"]:
            raise UserError(
                f"{here} has the checksum {found}, the hub says {file['sha256']}: delete it and fetch again"
            )
    return {"weights": [shown]}


def _local(row: dict[str, str]) -> dict[str, Any]:
    path = cached_path(row["reference"])
    size = None
    if path is not None:
        found = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
        size = sum(p.stat().st_size for p in found)
    there = None if path is None else str(path)
    use = row["use"].replace("PATH", there or row["reference"])
    return {**row, "bytes": size, "sha256": None, "path": there, "use": use}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
