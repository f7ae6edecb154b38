"""A data set's folder on disk, in an object store or on a web server: reads, lists, says what is missing."""

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.labels.unmatched import PICTURES, Unmatched
from pipelines.pictures.remote import Remote, Where, where_is
from pipelines.pictures.spelling import folded
from pipelines.pictures.system_files import is_system_file
from pipelines.store.index import no_access
from unigeoseg.errors import UserError

#: How many missing files a message names.
_NAMED = 10


@dataclass(frozen=True)
class Folder:
    """A folder and what lies in it; paths inside use ``/``.

    A file whose suffix is in another case than it is asked for is found all the same; see
    :mod:`pipelines.pictures.spelling`.

    Attributes:
        path: local folder, ``s3://`` prefix or address of a web server, as given.
    """

    path: str
    _listings: dict[str, frozenset[str]] = field(default_factory=dict, compare=False, repr=False)
    _alike: dict[str, dict[str, list[str]]] = field(default_factory=dict, compare=False, repr=False)
    _told: dict[str, set[str]] = field(default_factory=dict, compare=False, repr=False)

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
            place = self._at(inside)
            try:
                if isinstance(place, Remote):
                    names = place.names()
                else:
                    names = [one.name for one in place.iterdir()] if place.is_dir() else []
            except OSError as error:
                raise UserError(no_access(f"{self.path}/{inside}", error)) from error
            self._listings[inside] = frozenset(name for name in names if not is_system_file(name))
        return self._listings[inside]

    def has(self, *files: str) -> bool:
        """Whether all of these files or folders are there."""
        return all(self._spelled(file)[1] for file in files)

    def spelled(self, file: str) -> str:
        """The path of a file as the folder has it; as it is given where there is none."""
        place, names = self._spelled(file)
        return f"{place}{names[0]}" if len(names) == 1 else file

    def _spelled(self, file: str) -> tuple[str, list[str]]:
        """Where a file lies, and the names that it may have there."""
        place, slash, name = file.rpartition("/")
        if name in self.names(place):
            return place + slash, [name]
        if place not in self._alike:
            alike = self._alike[place] = defaultdict(list)
            for one in sorted(self.names(place)):
                alike[folded(one)].append(one)
        return place + slash, self._alike[place].get(folded(name), [])

    def states(self) -> dict[str, tuple[int, str]] | None:
        """Of each file below it bytes and what tells its state from others, as an object store lists them.

        ``None`` where no listing tells that: on disk, and on a web server.

        Raises:
            UserError: it cannot be listed.
        """
        place = self._at("")
        try:
            found = (
                {name: (size, mark) for name, size, mark in place.files()}
                if isinstance(place, Remote)
                else {}
            )
        except OSError as error:
            raise UserError(no_access(self.path, error)) from error
        return found if any(mark for _, mark in found.values()) else None

    def stems(self, inside: str, suffixes: tuple[str, ...]) -> dict[str, str]:
        """Names of files by their stem; where several have one, that of the first of ``suffixes`` counts.

        Raises:
            UserError: several of a stem differ in the case of their suffix alone, and none has it in small
                letters.
        """
        found: dict[str, list[str]] = defaultdict(list)
        for name in sorted(self.names(inside)):
            stem, dot, suffix = name.rpartition(".")
            if f"{dot}{suffix.lower()}" in suffixes:
                found[stem].append(name)
        chosen = {}
        for stem, names in found.items():
            wanted = next(s for s in suffixes if any(folded(name) == f"{stem}{s}" for name in names))
            alike = [name for name in names if folded(name) == f"{stem}{wanted}"]
            one = f"{stem}{wanted}" if f"{stem}{wanted}" in alike else alike[0]
            if len(alike) > 1 and one != f"{stem}{wanted}":
                raise UserError(self._clash(inside, f"{stem}{wanted}", alike))
            for other in alike:
                if other != one:
                    self._tell("twin_in_another_case", f"{inside}/{other}")
            for other in sorted(set(names) - set(alike)):
                self._tell(
                    "other_picture" if other.lower().endswith(PICTURES) else "other_file", f"{inside}/{other}"
                )
            chosen[stem] = one
        return chosen

    def _clash(self, inside: str, name: str, files: list[str]) -> str:
        return (
            f"{self.path}/{inside}: {' and '.join(files)} differ in the case of their suffix alone, and none "
            f"is spelled {name!r}: rename the one that is meant, or remove the other"
        )

    def _tell(self, reason: str, file: str) -> None:
        self._told.setdefault(reason, set()).add(file)

    def told(self) -> Unmatched:
        """Files that were asked for in another case, and those that another file stands in for."""
        found = Unmatched()
        for reason, files in sorted(self._told.items()):
            for file in sorted(files):
                (found.note if reason == "suffix_in_another_case" else found.add)(reason, file)
        return found

    def read(self, file: str) -> bytes:
        """The bytes of a file.

        Raises:
            UserError: it is missing or cannot be read.
        """
        try:
            try:
                return self._bytes(file)
            except FileNotFoundError:
                if (spelled := self.spelled(file)) == file:
                    raise
                return self._bytes(spelled)
        except FileNotFoundError as error:
            raise UserError(f"{self.path}/{file} is missing") from error
        except OSError as error:
            raise UserError(no_access(f"{self.path}/{file}", error)) from error

    def _bytes(self, file: str) -> bytes:
        place = self._at(file)
        return place.read() if isinstance(place, Remote) else place.read_bytes()

    def _at(self, path: str) -> Where:
        root = where_is(self.path)
        root = root.expanduser() if isinstance(root, Path) else root
        return root / path if path else root

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
            UserError: with the first missing files and their number; or several could be meant.
        """
        by_folder: dict[str, set[str]] = defaultdict(set)
        for file in files:
            place, _, name = file.rpartition("/")
            by_folder[place].add(name)
        total = sum(map(len, by_folder.values()))
        missing = []
        for place, names in sorted(by_folder.items()):
            for name in sorted(names - self.names(place)):
                file = f"{place}/{name}".lstrip("/")
                _, alike = self._spelled(file)
                if len(alike) > 1:
                    raise UserError(self._clash(place, name, alike))
                if alike:
                    self._tell("suffix_in_another_case", self.spelled(file))
                else:
                    missing.append(file)
        if missing:
            more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
            raise UserError(
                f"{self.path} lacks {len(missing)} of the {total} files of {what}: "
                f"{', '.join(missing[:_NAMED])}{more}; complete the download"
            )
