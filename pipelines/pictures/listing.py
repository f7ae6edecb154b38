"""The picture files that a person means by a file, a folder, a pattern or a prefix."""

from pathlib import Path
from typing import Any

from pipelines.pictures.system_files import is_system_file
from pipelines.storage.filesystem import is_remote, open_filesystem, storage_errors
from unigeoseg.errors import UserError

#: Suffixes of pictures in a folder; a pattern or a name decides for itself.
PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".jp2", ".webp", ".gif", ".bmp")
_MAGIC = "*?["


def list_pictures(text: str, option: str, suffixes: tuple[str, ...] = PICTURES) -> list[str]:
    """Paths or URLs in order, by name.

    Args:
        text: a file, a folder (and those below it), a pattern (``scenes/**/*.tif``), or a prefix of an object
            store (``s3://bucket/scenes``).
        option: of the command line, for messages.
        suffixes: of the files that count in a folder.

    Raises:
        UserError: there is nothing.
    """
    if text.lower().startswith(("http://", "https://")):
        return [text]
    filesystem, inside = open_filesystem(text)
    try:
        found = _find(filesystem, inside, any(c in text for c in _MAGIC), suffixes)
    except storage_errors() as error:
        raise UserError(f"{option} {text} cannot be listed ({error}); check the address") from error
    scheme = text.partition("://")[0] + "://" if is_remote(text) else ""
    if not found:
        raise UserError(
            f"{option} {text}: there is no picture; give a file, a folder, a pattern such as 'scenes/*.tif' "
            "in quotes, or s3://bucket/prefix"
        )
    return [f"{scheme}{path}" for path in sorted(found)]


def _find(filesystem: Any, inside: str, pattern: bool, suffixes: tuple[str, ...]) -> list[str]:
    if not pattern and filesystem.isfile(inside):
        return [inside]
    found = filesystem.glob(inside) if pattern else filesystem.find(inside)
    files = [str(path) for path in found if not is_system_file(Path(str(path)).name)]
    if pattern:
        return [path for path in files if filesystem.isfile(path)]
    return [path for path in files if path.lower().endswith(suffixes)]
