"""Weights and tokenizers that may lie in an object store, as local files."""

import hashlib
import logging
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Any

from pipelines.storage.filesystem import open_filesystem
from pipelines.weights.hub import SCHEME, hub_copy
from pipelines.weights.references import resolved
from unigeoseg.errors import UserError

logger = logging.getLogger(__name__)


def local_copy(path: str) -> Path:
    """A local path for what a reference names; fetched once per machine.

    See :mod:`pipelines.weights.references` for the forms.

    What was overwritten there since is fetched again: the copy's name holds the state of the objects.

    Raises:
        UserError: there is nothing at ``path``, or the folder of the copies is another user's.
    """
    path = resolved(path)
    if "://" not in path:
        return Path(path).expanduser()
    if path.startswith(SCHEME):
        return hub_copy(path)
    fs, inside = open_filesystem(path)
    fs.invalidate_cache()  # what was listed before may have been overwritten
    if not fs.exists(inside):
        raise UserError(f"no weights at {path}; check the address and the credentials")
    name = hashlib.sha256(f"{path}\0{_state(fs, inside)}".encode()).hexdigest()[:16]
    target = _own_folder() / name / Path(inside).name
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fetched = Path(tempfile.mkdtemp(dir=target.parent)) / target.name
    fs.get(inside, str(fetched), recursive=bool(fs.isdir(inside)))
    try:
        fetched.rename(target)  # whole or not at all, whoever else fetches it
    except OSError:
        logger.debug("%s was fetched by another process meanwhile", path)
    shutil.rmtree(fetched.parent, ignore_errors=True)
    return target


def _state(fs: Any, inside: str) -> str:
    """Names, sizes, times and checksums of the objects, as far as the store tells them."""
    found = fs.find(inside, detail=True) or {inside: fs.info(inside)}
    known = ("size", "ETag", "LastModified", "VersionId", "mtime", "created", "md5Hash", "generation")
    return repr([(name, [str(facts.get(key)) for key in known]) for name, facts in sorted(found.items())])


def _own_folder() -> Path:
    """Where copies lie: a folder of ours that nobody else may write to.

    The system's temporary folder belongs to all users, and weights are loaded from here.

    Raises:
        UserError: it is there already, and is another user's, open to others, or no folder.
    """
    folder = Path(tempfile.gettempdir()) / f"unigeoseg-weights-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    facts = folder.lstat()
    open_to_others = facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid() or open_to_others:
        raise UserError(
            f"{folder} is not a folder of yours alone (owner {facts.st_uid}, mode "
            f"{facts.st_mode & 0o7777:o}): others could put weights there; remove it, or set TMPDIR to "
            "a folder of your own"
        )
    return folder
