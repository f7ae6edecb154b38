"""Files in an object store or on a web server, used as files on disk are."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from pipelines.storage.filesystem import is_remote, open_filesystem, storage_errors

#: Bytes of a remote file that are read at once.
_PART = 256 * 1024
#: What stores and servers call it, the surest first.
_MARKS = ("ETag", "LastModified", "Last-Modified", "mtime")


@dataclass(frozen=True)
class Remote:
    """A file or folder in an object store or on a web server; of files only what is needed is read.

    Attributes:
        url: such as ``s3://bucket/a.tif`` or ``https://host/a.tif``.
    """

    url: str

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, path: str) -> "Remote":
        return Remote(f"{self.url.rstrip('/')}/{quote(path) if self._on_web else path}")

    @property
    def _on_web(self) -> bool:
        return self.url.lower().startswith(("http://", "https://"))

    @property
    def name(self) -> str:
        """The last part of the path."""
        last = self.url.rstrip("/").rpartition("/")[2]
        return unquote(last) if self._on_web else last

    def place(self) -> tuple[Any, str]:
        """Its filesystem, and its path there."""
        return open_filesystem(self.url)

    def read(self, first: int | None = None) -> bytes:
        """All of it, or its first bytes.

        Raises:
            OSError: it is not there, or cannot be had.
        """
        filesystem, path = self.place()
        with _as_os_error():
            return bytes(filesystem.cat_file(path, end=first))

    def open(self) -> Any:
        """The file, of which parts are read as they are asked for."""
        filesystem, path = self.place()
        return ByParts(filesystem).open(path)

    def state(self) -> tuple[int, str]:
        """Bytes, and what tells this state of the file from others: its ETag, else when it was changed.

        Raises:
            OSError: it is not there, or cannot be had.
        """
        filesystem, path = self.place()
        with _as_os_error():
            filesystem.invalidate_cache(path)
            return _state(filesystem.info(path))

    def names(self) -> list[str]:
        """Names of the files and folders directly in a folder; none where there is no such folder.

        Raises:
            OSError: it cannot be had.
        """
        filesystem, path = self.place()
        with _as_os_error():
            try:
                if self._on_web:
                    return [unquote(url.rstrip("/")[len(path) + 1 :]) for url in _links(filesystem, path)]
                found = filesystem.ls(path, detail=False) if filesystem.isdir(path) else []
            except FileNotFoundError:
                return []
        return [str(one).rstrip("/").rpartition("/")[2] for one in found]

    def files(self) -> Iterator[tuple[str, int, str]]:
        """Everything below a folder, in order: relative path, bytes, and what tells this state from others.

        A web server tells what it has by the links of its pages; those tell neither (:meth:`state` does).

        Raises:
            OSError: there is no such folder, or it cannot be had.
        """
        filesystem, path = self.place()
        with _as_os_error():
            if self._on_web:
                yield from ((name, 0, "") for name in sorted(_linked(filesystem, path)))
                return
            filesystem.invalidate_cache()
            found = filesystem.find(path, detail=True)
        for name in sorted(found):
            if not name.endswith("/"):
                yield name[len(path) :].lstrip("/"), *_state(found[name])


def _state(about: Mapping[str, Any]) -> tuple[int, str]:
    """Bytes, and what tells the state of a file from others, as far as its store or server says."""
    mark = next((about[name] for name in _MARKS if about.get(name)), "")
    return int(about.get("size") or 0), str(mark)


def _links(filesystem: Any, page: str) -> list[str]:
    """What a page links to directly below it; no other orders of the list, nothing above or elsewhere."""
    found = []
    for url in sorted(filesystem.ls(f"{page}/", detail=False)):
        name = url[len(page) + 1 :].rstrip("/")
        if url.startswith(f"{page}/") and name not in ("", ".", "..") and not {"?", "#", "/"} & set(name):
            found.append(url)
    return found


def _linked(filesystem: Any, page: str, above: str = "") -> Iterator[str]:
    """Files that a page and those below it link to, as paths."""
    for url in _links(filesystem, page):
        name = unquote(url.rstrip("/").rpartition("/")[2])
        if url.endswith("/"):
            yield from _linked(filesystem, url.rstrip("/"), f"{above}{name}/")
        else:
            yield f"{above}{name}"


@contextmanager
def _as_os_error() -> Iterator[None]:
    """Errors of the clients as the kind that files raise."""
    try:
        yield
    except OSError:
        raise
    except storage_errors() as error:
        raise OSError(" ".join(str(error).split())) from error


class ByParts:
    """A filesystem whose files read little ahead: a window of a large file needs a few places of it.

    What was read ahead is kept and used: rows of blocks follow one another, and none is asked for twice.
    """

    def __init__(self, filesystem: Any) -> None:
        self._filesystem = filesystem

    def open(self, path: str, mode: str = "rb", **_: Any) -> Any:
        """Opens a file to be read."""
        return _Opening(self._filesystem.open(path, mode, block_size=_PART, cache_type="readahead"))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._filesystem, name)


class _Opening:
    """A file as it was opened once, equal to itself alone.

    rasterio holds on to open files in a dictionary by the files themselves, and two openings of the same path
    are equal to fsspec: the second one would be freed while GDAL still reads from it, which ends the process.
    """

    def __init__(self, file: Any) -> None:
        self._file = file

    def __enter__(self) -> "_Opening":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


#: A file or folder, wherever it is.
Where = Path | Remote


def where_is(text: str) -> Where:
    """A path or URL as what can be read."""
    return Remote(text) if is_remote(text) else Path(text.removeprefix("file://"))


def size_of(file: Where) -> int:
    """Bytes.

    Raises:
        OSError: it is not there, or cannot be had.
    """
    return state_of(file)[0]


def state_of(file: Where) -> tuple[int, str]:
    """Bytes, and what tells this state of a file from others.

    Raises:
        OSError: it is not there, or cannot be had.
    """
    if isinstance(file, Remote):
        return file.state()
    status = file.stat()
    return status.st_size, str(status.st_mtime_ns)


def read_text(file: Where) -> str:
    """The content of a file in UTF-8, with or without a byte order mark.

    Raises:
        OSError: it is not there, or cannot be had.
        UnicodeDecodeError: it is in another encoding.
    """
    if isinstance(file, Remote):
        return file.read().decode("utf-8-sig").replace("\r\n", "\n")
    return file.read_text(encoding="utf-8-sig")
