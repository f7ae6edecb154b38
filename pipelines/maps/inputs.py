"""Which rasters a map's ``--input`` means, and which outputs each gets."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from pipelines.pictures.listing import PICTURES, list_pictures
from pipelines.pictures.remote import Remote, read_text, where_is
from pipelines.storage.filesystem import is_remote, open_filesystem, storage_errors
from unigeoseg.errors import UserError

#: Of STAC assets: what may be looked at, the best first (STAC specification, asset roles and common names).
_NAMES = ("visual", "image", "data", "rgb")
_ENDS = 1 << 20
_TYPES = ("image/tiff", "image/jp2", "application/geotiff")


def list_inputs(given: Sequence[str], asset: str | None) -> list[str]:
    """Paths or URLs of the rasters, in order, each once.

    Args:
        given: files, folders, patterns, prefixes of an object store, STAC items (``.json``).
        asset: of STAC items; ``None``: the first raster that is for looking at.

    Raises:
        UserError: one names nothing.
    """
    if not given:
        raise UserError(
            "give --input: a raster, a folder, a pattern in quotes, s3://bucket/prefix or a STAC item"
        )
    found: dict[str, None] = {}
    for text in given:
        if text.lower().endswith((".json", ".geojson")):
            found[_of_item(text, asset)] = None
        elif not is_remote(text) and not Path(text).exists() and not set("*?[") & set(text):
            raise UserError(f"--input {text} does not exist; give a raster, a folder or a pattern")
        else:
            found.update(dict.fromkeys(list_pictures(text, "--input", (*PICTURES, ".vrt"))))
    return list(found)


def _of_item(path: str, asset: str | None) -> str:
    """The raster of a STAC item."""
    try:
        item: Any = json.loads(read_text(where_is(path)))
    except (*storage_errors(),) as error:
        raise UserError(f"--input {path} cannot be read as a STAC item ({error})") from error
    assets = item.get("assets") if isinstance(item, dict) else None
    if not isinstance(assets, dict) or "stac_version" not in item:
        raise UserError(f"--input {path} is no STAC item: it has no stac_version and assets")
    if asset is not None and asset not in assets:
        raise UserError(f"--asset {asset}: {path} has {', '.join(assets) or 'no assets'}")
    names = [asset] if asset else _rasters(assets)
    if not names:
        raise UserError(f"{path} has no raster among {', '.join(assets)}: name one with --asset")
    href = str(assets[names[0]].get("href", ""))
    if is_remote(href) or Path(href).is_absolute():
        return href
    source = where_is(path)
    return urljoin(source.url, href) if isinstance(source, Remote) else str(source.parent / href)


def _rasters(assets: dict[str, Any]) -> list[str]:
    def rank(name: str) -> tuple[int, int]:
        roles = [name, *assets[name].get("roles", [])]
        known = [_NAMES.index(role) for role in roles if role in _NAMES]
        return min(known, default=len(_NAMES)), list(assets).index(name)

    fits = [
        name
        for name, one in assets.items()
        if str(one.get("type", "")).partition(";")[0] in _TYPES
        or str(one.get("href", "")).lower().endswith((".tif", ".tiff", ".jp2"))
    ]
    return sorted(fits, key=rank)


def output_folders(paths: Sequence[str], out: str) -> list[Path]:
    """Where the outputs of each raster go: into ``out``, or a folder inside it where there are several.

    Args:
        paths: of the rasters.
        out: of the map.

    Raises:
        UserError: ``out`` is in an object store.
    """
    if is_remote(out):
        raise UserError(f"--out {out}: give a folder; copy the outputs where they belong afterwards")
    base = Path(out.removeprefix("file://")).expanduser()
    if len(paths) == 1:
        return [base]
    stems = [Path(path).stem for path in paths]
    total, seen = Counter(stems), Counter[str]()
    folders = []
    for stem in stems:
        seen[stem] += 1
        folders.append(base / (stem if total[stem] == 1 else f"{stem}__{seen[stem]}"))
    return folders


def model_state(export: str) -> list[tuple[str, str]]:
    """Names and contents of an export's files: it may be fetched to another place each time.

    Of large files the first and last megabyte count, which training changes.
    """
    if is_remote(export):
        return state_of(export)
    found = []
    for path in sorted(path for path in Path(export).rglob("*") if path.is_file()):
        size = path.stat().st_size
        with path.open("rb") as handle:
            digest = hashlib.sha256(handle.read(_ENDS))
            handle.seek(max(0, size - _ENDS))
            digest.update(handle.read())
        found.append((path.relative_to(export).as_posix(), f"{size} {digest.hexdigest()}"))
    return found


def state_of(path: str) -> list[tuple[str, str]]:
    """Names and states (size and time, or the store's checksum) of a file, or of the files of a folder."""
    filesystem, inside = open_filesystem(path)
    try:
        files = [inside] if filesystem.isfile(inside) else sorted(str(f) for f in filesystem.find(inside))
        return [(file.removeprefix(inside), str(filesystem.ukey(file))) for file in files]
    except storage_errors() as error:
        raise UserError(f"{path} cannot be reached ({error})") from error
