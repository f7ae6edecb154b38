"""Weights and tokenizers that may lie in an object store, as local files."""

import hashlib
import logging
import os
import shutil
import tempfile
from pathlib import Path

from pipelines.storage import open_filesystem
from unigeoseg.errors import UserError

logger = logging.getLogger(__name__)


def local_copy(path: str) -> Path:
    """A local path for a file or folder that may be in an object store; fetched once per machine.

    Raises:
        UserError: there is nothing at ``path``.
    """
    if "://" not in path:
        return Path(path).expanduser()
    fs, inside = open_filesystem(path)
    if not fs.exists(inside):
        raise UserError(f"no weights at {path}; check the address and the credentials")
    name = hashlib.sha256(path.encode()).hexdigest()[:16]
    target = Path(tempfile.gettempdir()) / f"unigeoseg-weights-{os.getuid()}" / name / Path(inside).name
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    fetched = Path(tempfile.mkdtemp(dir=target.parent)) / target.name
    fs.get(inside, str(fetched), recursive=bool(fs.isdir(inside)))
    try:
        fetched.rename(target)  # whole or not at all, whoever else fetches it
    except OSError:
        logger.debug("%s was fetched by another process meanwhile", path)
    shutil.rmtree(fetched.parent, ignore_errors=True)
    return target
