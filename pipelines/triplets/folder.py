"""A data set's folder, local or on S3: reading files, listing, and saying what is missing."""

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from pipelines.pictures.system_files import is_system_file
from pipelines.storage import open_filesystem, storage_errors
from pipelines.store.index import no_access
from unigeoseg.errors import UserError

#: How many missing files a message names.
_NAMED = 10


@dataclass(frozen=True)
class Folder:
    """A folder and what lies in it; paths inside use ``/``.

    Attributes:
        path: local folder or ``s3://`` prefix, as given.
    """

    path: str
    _listings: dict[str, frozenset[str]] = field(default_factory=dict, compare=False, repr=False)

    def __reduce__(self) -> tuple[type["Folder"], tuple[str]]:
        """Without the listings, which may name millions of files: another process lists what it asks for."""
        return type(self), (self.path,)

    def __truediv__(self, name: str) -> "Folder":
        return Folder(f"{self.path.rstrip('/')}/{name}") if name else self

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rstrip("/").rpartition("/")[2]

    def names(self, inside: str = "") -> frozenset[str]:
        """Names of files and folders directly in ``inside``, no system's own; listed once."""
        if inside not in self._listings:
            fs, root = open_filesystem(self.path)
            place = f"{root}/{inside}".rstrip("/")
            try:
                found = fs.ls(place, detail=False) if fs.isdir(place) else []
            except storage_errors() as error:
                raise UserError(no_access(f"{self.path}/{inside}", error)) from error
            names = (str(p).rstrip("/").rpartition("/")[2] for p in found)
            self._listings[inside] = frozenset(name for name in names if not is_system_file(name))
        return self._listings[inside]

    def has(self, *files: str) -> bool:
        """Whether all of these files or folders are there."""
        return all(file.rpartition("/")[2] in self.names(file.rpartition("/")[0]) for file in files)

    def read(self, file: str) -> bytes:
        """The bytes of a file.

        Raises:
            UserError: it is missing or cannot be read.
        """
        fs, root = open_filesystem(self.path)
        try:
            data: bytes = fs.cat_file(f"{root}/{file}")
        except FileNotFoundError as error:
            raise UserError(f"{self.path}/{file} is missing") from error
        except storage_errors() as error:
            raise UserError(no_access(f"{self.path}/{file}", error)) from error
        return data

    def read_json(self, file: str) -> Any:
        """The content of a JSON file.

        Raises:
            UserError: missing, unreadable or no JSON.
        """
        try:
            return json.loads(self.read(file))
        except (ValueError, RecursionError) as error:
            raise UserError(f"{self.path}/{file} is no JSON ({error}); download it again") from error

    def require(self, files: Iterable[str], what: str) -> None:
        """Refuses a folder that lacks some of ``files``, naming them.

        Raises:
            UserError: with the first missing files and their number.
        """
        by_folder: dict[str, set[str]] = defaultdict(set)
        for file in files:
            place, _, name = file.rpartition("/")
            by_folder[place].add(name)
        total = sum(map(len, by_folder.values()))
        missing = [
            f"{place}/{name}".lstrip("/")
            for place, names in sorted(by_folder.items())
            for name in sorted(names - self.names(place))
        ]
        if missing:
            more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
            raise UserError(
                f"{self.path} lacks {len(missing)} of the {total} files of {what}: "
                f"{', '.join(missing[:_NAMED])}{more}; complete the download"
            )
