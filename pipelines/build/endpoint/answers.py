"""Paid answers by the content of their question, in a folder or on object storage."""

import hashlib
import json
import secrets
from pathlib import Path
from typing import Any

from pipelines.storage.filesystem import is_remote, open_filesystem
from pipelines.store.writer import atomic_write


class AnswerCache:
    """Keeps answers; two processes may use one folder, since the same question has the same answer.

    Args:
        place: folder or ``s3://`` prefix.
    """

    def __init__(self, place: str) -> None:
        self.place = place
        self._fs, self._root = open_filesystem(place)
        self._remote = is_remote(place)

    def key(self, question: dict[str, Any]) -> str:
        """SHA-256 of a question: model, messages with their images, schema, sampling."""
        return hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()

    def get(self, key: str) -> dict[str, Any] | None:
        """A paid answer; a file that is no JSON counts as none."""
        try:
            found = json.loads(self._fs.cat_file(self._path(key)))
        except (FileNotFoundError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def put(self, key: str, answer: dict[str, Any]) -> dict[str, Any]:
        """Keeps an answer, complete or not at all, and gives it.

        If another process has kept one meanwhile, that one stays and comes back: a model may answer the same
        question in two ways, and a build that goes on must find what it used before. (On object storage two
        that write within the same moment may each have its own.)
        """
        if (known := self.get(key)) is not None:
            return known
        data = json.dumps(answer, sort_keys=True, ensure_ascii=False).encode()
        if not self._remote:
            self._keep(Path(self._path(key)), data)
            return self.get(key) or answer
        with atomic_write(self._fs, self._path(key), remote=True) as handle:
            handle.write(data)
        return answer

    def _keep(self, path: Path, data: bytes) -> None:
        """Writes a file under a name of its own, then links it to its place unless one came there first."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.stem}.{secrets.token_hex(8)}.partial")
        try:
            partial.write_bytes(data)
            try:
                path.hardlink_to(partial)
            except OSError:  # it is there, or the disk has no links
                if self.get(path.stem) is None:
                    partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def _path(self, key: str) -> str:
        return f"{self._root}/{key[:2]}/{key}.json"
