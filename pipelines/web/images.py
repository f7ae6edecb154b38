"""The pictures that a page or a caller may name: by ids that this process gave, never by paths or URLs."""

import secrets
import shutil
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.web.pyramid import TILE, Pyramid

#: Bytes of opened pictures that are kept at once.
_OPEN_BYTES = 1 << 30
#: Uploads that nobody looked at for so many seconds are deleted.
IDLE_SECONDS = 1800.0

Opener = Callable[[], Pyramid]


class UnknownImage(LookupError):
    """There is no picture of this id, or no longer."""


@dataclass
class Image:
    """A picture that is served.

    Attributes:
        id: by which it is asked for.
        name: that people see.
        pyramid: its pixels.
        kept: whether it stays; uploads do not.
    """

    id: str
    name: str
    pyramid: Pyramid
    kept: bool = True

    def describe(self) -> dict[str, Any]:
        """What a caller needs to know of it."""
        pyramid, place = self.pyramid, self.pyramid.place
        return {
            "image": self.id,
            "name": self.name,
            "width": pyramid.width,
            "height": pyramid.height,
            "crs": place.crs.to_string() if place else None,
            "levels": pyramid.depth,
            "tile": TILE,
        }


@dataclass
class _Known:
    name: str
    opener: Opener
    upload: Path | None = None
    nbytes: int = 0
    used: float = field(default_factory=time.monotonic)


class Images:
    """All pictures by id.

    Args:
        upload_bytes: of all uploads together; beyond them the ones that were longest unused are deleted.
        folder: in which a new one is made for uploads; ``None``: the one for temporary files.
        idle_seconds: after which an upload that nobody looked at is deleted.
    """

    def __init__(
        self, upload_bytes: int, folder: str | None = None, idle_seconds: float = IDLE_SECONDS
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="unigeoseg-uploads-", dir=folder))
        self._upload_bytes, self._idle = upload_bytes, idle_seconds
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._open: OrderedDict[str, Pyramid] = OrderedDict()
        self._families: dict[str, Callable[[int], tuple[str, Opener] | None]] = {}
        self._lock = threading.RLock()

    def add(self, family: str, name: str, opener: Opener) -> str:
        """Makes a picture known for as long as this process lives; its id."""
        with self._lock:
            number = sum(known.startswith(f"{family}-") for known in self._known)
            found = f"{family}-{number}"
            self._known[found] = _Known(name, opener)
            return found

    def add_family(self, family: str, opener: Callable[[int], tuple[str, Opener] | None]) -> None:
        """Pictures that are known by number: ``family-NUMBER``.

        Args:
            family: small letters.
            opener: name and opener of a number, ``None`` where there is none.
        """
        self._families[family] = opener

    def add_upload(self, path: Path, name: str) -> Image:
        """A file that came from a caller; it is deleted where it is no picture.

        Raises:
            UserError: it is none that is read.
        """
        found = f"upload-{secrets.token_urlsafe(12)}"
        try:
            pyramid = Pyramid.open(path, name)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        with self._lock:
            known = _Known(name, lambda: Pyramid.open(path, name), path, path.stat().st_size)
            self._known[found] = known
            self._keep_open(found, pyramid)
            self.sweep()
        return Image(found, name, pyramid, kept=False)

    def get(self, image: str) -> Image:
        """A picture, opened.

        Raises:
            UnknownImage: there is none of this id.
            UserError: its file can no longer be read.
        """
        with self._lock:
            known = self._known.get(image) or self._of_family(image)
            if known is None:
                raise UnknownImage(image)
            known.used = time.monotonic()
            pyramid = self._open.get(image)
        if pyramid is None:
            pyramid = known.opener()  # others are served meanwhile
        with self._lock:
            pyramid = self._open.get(image, pyramid)  # the first one that was opened, if two were
            self._keep_open(image, pyramid)
        return Image(image, known.name, pyramid, known.upload is None)

    def remove(self, image: str) -> None:
        """Deletes an upload; others stay.

        Raises:
            UnknownImage: there is no upload of this id.
        """
        with self._lock:
            known = self._known.get(image)
            if known is None or known.upload is None:
                raise UnknownImage(image)
            known.upload.unlink(missing_ok=True)
            self._open.pop(image, None)
            del self._known[image]

    def sweep(self) -> None:
        """Deletes uploads that were not used for long, and the longest unused ones beyond the bytes."""
        with self._lock:
            uploads = sorted(
                ((known.used, name, known.nbytes) for name, known in self._known.items() if known.upload),
            )
            held = sum(size for _, _, size in uploads)
            oldest = time.monotonic() - self._idle
            for used, name, size in uploads[:-1] if uploads and uploads[-1][0] >= oldest else uploads:
                if used < oldest or held > self._upload_bytes:
                    held -= size
                    self.remove(name)

    def close(self) -> None:
        """Deletes all uploads."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _of_family(self, image: str) -> _Known | None:
        family, _, number = image.partition("-")
        if family not in self._families or not number.isascii() or not number.isdigit() or len(number) > 12:
            return None
        found = self._families[family](int(number))
        return None if found is None else _Known(*found)

    def _keep_open(self, image: str, pyramid: Pyramid) -> None:
        self._open[image] = pyramid
        self._open.move_to_end(image)
        while len(self._open) > 1 and sum(one.nbytes for one in self._open.values()) > _OPEN_BYTES:
            self._open.popitem(last=False)
