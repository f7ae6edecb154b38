"""The folder of an export, with notes of what is finished, so that a stopped export goes on."""

import json
from collections.abc import Mapping
from typing import Any

from pipelines.storage.filesystem import is_remote, open_filesystem, storage_errors
from pipelines.store.index import no_access
from pipelines.store.writer import atomic_write
from unigeoseg.errors import UserError

#: Holds the notes while an export is unfinished.
NOTES = "_export"
_PLAN = "plan"


class Target:
    """The folder that is written to.

    Args:
        out: folder or ``s3://`` prefix: empty, new, or with an unfinished export of the same plan.
        plan: what decides every byte of the export.

    Raises:
        UserError: ``out`` holds other files, or cannot be read.
    """

    def __init__(self, out: str, plan: Mapping[str, Any]) -> None:
        self._filesystem, self._root = open_filesystem(out)
        self._remote = is_remote(out)
        self._filesystem.invalidate_cache()
        try:
            there = self._filesystem.exists(self._root) and self._filesystem.ls(self._root, detail=False)
        except storage_errors() as error:
            raise UserError(no_access(out, error)) from error
        #: Whether an earlier export is gone on with.
        self.begun = bool(there)
        if there and (found := self.note(_PLAN)) != dict(plan):
            raise UserError(
                f"--out {out} holds files already: name an empty or new folder"
                if found is None
                else f"--out {out} holds an unfinished export of another store or form: give the same "
                "command to go on with it, or name an empty or new folder"
            )
        if not there:
            self.keep(_PLAN, plan)

    def open(self, name: str) -> Any:
        """A context with a file that appears when it is complete."""
        return atomic_write(self._filesystem, f"{self._root}/{name}", self._remote)

    def write(self, name: str, data: bytes) -> None:
        """A whole file."""
        with self.open(name) as handle:
            handle.write(data)

    def note(self, name: str) -> dict[str, Any] | None:
        """What :meth:`keep` wrote; ``None`` where nothing was finished under that name."""
        try:
            data = self._filesystem.cat_file(f"{self._root}/{NOTES}/{name}.json")
        except FileNotFoundError:
            return None
        found: dict[str, Any] = json.loads(data)
        return found

    def keep(self, name: str, note: Mapping[str, Any]) -> None:
        """Notes that a part is finished."""
        self.write(f"{NOTES}/{name}.json", json.dumps(note).encode())

    def close(self) -> None:
        """Removes the notes: the export is whole."""
        self._filesystem.invalidate_cache()
        self._filesystem.rm(f"{self._root}/{NOTES}", recursive=True)
