"""Folders of a process for files on their way to an object store; those of dead processes are swept.

They lie in the folder for temporary files, or in ``UNIGEOSEG_SCRATCH``. A killed process leaves its folder
behind, with the parts of a checkpoint in it: the next one on this machine removes it.
"""

import logging
import os
import re
import shutil
import socket
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

from unigeoseg.errors import UserError

logger = logging.getLogger(__name__)
#: Where such folders are made.
SCRATCH: Final = "UNIGEOSEG_SCRATCH"
_NAME = re.compile(r"unigeoseg-run-(?P<host>.+)-(?P<pid>\d+)-(?P<born>\d+)-\w+")
_GIB = 2**30


def scratch_place() -> Path:
    """Where folders of processes are made."""
    return Path(os.environ.get(SCRATCH) or tempfile.gettempdir())


def scratch_folder() -> Path:
    """A new folder of this process.

    Raises:
        UserError: ``UNIGEOSEG_SCRATCH`` names no folder that can be written.
    """
    where = scratch_place()
    sweep(where)
    own = psutil.Process()
    prefix = f"unigeoseg-run-{socket.gethostname()}-{own.pid}-{int(own.create_time())}-"
    try:
        where.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=prefix, dir=where))
    except OSError as error:
        raise UserError(
            f"cannot make a folder for temporary files in {where}: {error.strerror}; set {SCRATCH} to one "
            "that can be written"
        ) from error


def sweep(where: Path) -> int:
    """Removes what processes of this machine that are gone left behind; how many folders that were.

    Folders of other users stay, as do those of other machines where ``where`` is shared.
    """
    swept = 0
    for folder in where.glob("unigeoseg-run-*"):
        found = _NAME.fullmatch(folder.name)
        if (
            found is None
            or found["host"] != socket.gethostname()
            or _runs(int(found["pid"]), int(found["born"]))
        ):
            continue
        with suppress(OSError):
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            shutil.rmtree(folder)
            swept += 1
            logger.info("removed %s, which a killed process left behind", folder)
    return swept


def check_room(folder: Path, needed: int, what: str) -> None:
    """Makes sure that files fit before hours were spent on them.

    Args:
        folder: where they will be written.
        needed: bytes.
        what: they are.

    Raises:
        UserError: they do not.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{what} needs {needed / _GIB:.1f} GiB in {folder}, which has {free / _GIB:.1f}; make room or "
            f"set {SCRATCH} to a folder on a larger disk"
        )


def _runs(pid: int, born: int) -> bool:
    try:
        return abs(psutil.Process(pid).create_time() - born) < 2
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True
