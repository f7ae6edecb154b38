"""The grammar of what names weights, everywhere.

A folder or file, ``s3://``, ``hf://``, ``timm:NAME``, or ``package:NAME[/FILE]`` for what an installed Python
package brings along.
``models:/NAME@ALIAS`` names whole models alone (:mod:`pipelines.tracking.registry`). ``UNIGEOSEG_WEIGHTS``
may name a mirror, a folder or ``s3://`` prefix with folders ``ORG/NAME`` (and ``ORG/NAME@REVISION``): what
it holds is taken from there, and no hub is asked. So machines without a way out get their weights.
"""

import importlib.util
import os
from pathlib import Path
from typing import Final

from pipelines.storage.filesystem import open_filesystem, storage_errors
from pipelines.weights.hub import SCHEME, HubReference
from unigeoseg.errors import UserError

#: Weights that timm names for one of its models.
TIMM: Final = "timm:"
#: A file of an installed package.
PACKAGE: Final = "package:"
#: The variable that names a mirror.
MIRROR: Final = "UNIGEOSEG_WEIGHTS"
#: The file of a timm model's repository.
_TIMM_FILE = "model.safetensors"
#: What weights in a package end with.
_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".gguf")


def is_reference(text: str) -> bool:
    """Whether it names weights by where they come from, and not by a path or an address."""
    return text.startswith((SCHEME, TIMM, PACKAGE))


def resolved(text: str) -> str:
    """What a reference means: ``timm:NAME`` is a file on the hub; what the mirror holds lies there.

    Args:
        text: of any form.

    Raises:
        UserError: timm knows no such model, or no weights of it; the mirror cannot be looked at; or the
            package is not installed, or has no such file.
    """
    if text.startswith(PACKAGE):
        return str(_in_package(text))
    if text.startswith(TIMM):
        text = f"{SCHEME}{_timm_repository(text.removeprefix(TIMM))}/{_TIMM_FILE}"
    if not text.startswith(SCHEME):
        return text
    return _mirrored(HubReference.parse(text)) or text


def package_folder(name: str) -> Path | None:
    """Where an installed Python package lies; ``None``: there is none of that name."""
    found = importlib.util.find_spec(name) if name.isidentifier() else None
    return Path(found.origin).parent if found is not None and found.origin else None


def _in_package(text: str) -> Path:
    name, _, inside = text.removeprefix(PACKAGE).partition("/")
    folder = package_folder(name)
    if folder is None:
        raise UserError(f"{text}: no package {name} is installed here: pip install {name.replace('_', '-')}")
    if inside:
        if not (folder / inside).exists():
            raise UserError(f"{text}: the package has no {inside}; look into {folder}")
        return folder / inside
    files = sorted(path for path in folder.rglob("*") if path.suffix in _SUFFIXES)
    if len(files) != 1:
        names = ", ".join(str(path.relative_to(folder)) for path in files) or "none"
        raise UserError(f"{text}: say which file of weights, {PACKAGE}{name}/FILE; the package has {names}")
    return files[0]


def _timm_repository(name: str) -> str:
    import timm  # takes seconds to import

    from unigeoseg.modules.backbone import check_backbone

    try:
        check_backbone(name.partition(".")[0])
    except ValueError as error:
        raise UserError(f"{TIMM}{name}: {error}") from error
    try:
        found = timm.models.get_pretrained_cfg(name)
    except RuntimeError:  # of that name there are other weights
        found = None
    if found is None or not found.hf_hub_id:
        tags = timm.list_pretrained(f"{name.partition('.')[0]}.*")
        raise UserError(f"{TIMM}{name}: timm names no weights for it; there are {', '.join(tags) or 'none'}")
    return str(found.hf_hub_id)


def _mirrored(reference: HubReference) -> str | None:
    """Where the mirror holds it; ``None``: there is no mirror, or it lacks it."""
    mirror = os.environ.get(MIRROR)
    if not mirror:
        return None
    at = f"@{reference.revision}" if reference.revision else ""
    file = f"/{reference.file}" if reference.file else ""
    path = f"{mirror.rstrip('/')}/{reference.repo}{at}{file}"
    try:
        fs, inside = open_filesystem(path)
        return path if fs.exists(inside) else None
    except storage_errors() as error:
        raise UserError(
            f"{MIRROR}={mirror} cannot be looked at ({error}); correct it, or unset it"
        ) from error
