"""A file that grows, kept in an object store without sending again what is there."""

import logging
from pathlib import Path
from typing import Any

from pipelines.storage.filesystem import storage_errors

logger = logging.getLogger(__name__)
#: Object stores join a long object and a short one themselves from here on (S3: the least part of an upload).
LEAST = 5 * 2**20
_REFUSALS: tuple[type[Exception], ...] = (*storage_errors(), NotImplementedError)


class GrowingObject:
    """Sends a file that is only ever appended to, at each call what came since the last.

    Records of a run of months are hundreds of megabytes; sent whole at each checkpoint they would cost more
    than the checkpoints. The store joins what it has and what is new, so readers find one whole object.

    Args:
        files: of the store; calls are repeated with patience, streams are not.
        target: the object.
    """

    def __init__(self, files: Any, target: str) -> None:
        self._files, self._target = files, target
        self._sent = 0

    def send(self, path: Path) -> None:
        """Brings the object up to what the file holds at this moment."""
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if size == self._sent:
                return
            if not (LEAST <= self._sent < size and self._append(file, size)):
                file.seek(0)
                self._files.pipe_file(self._target, file.read(size))
        self._sent = size

    def _append(self, file: Any, size: int) -> bool:
        """Whether the store took what is new; when in doubt it gets the whole once more."""
        try:
            if self._size() != self._sent:
                return False
            file.seek(self._sent)
            with self._files.open(self._target, "ab") as remote:
                remote.write(file.read(size - self._sent))
            return self._size() == size
        except _REFUSALS as error:
            logger.debug("%s could not be appended to: %s", self._target, error)
            return False

    def _size(self) -> int:
        self._files.invalidate_cache()
        return int(self._files.info(self._target)["size"])
