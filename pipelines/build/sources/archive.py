"""Unpacks downloaded archives without trusting them: no member leaves the folder, none grows without end."""

import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from unigeoseg.errors import UserError

#: More than any imagery compresses by; a zip bomb needs hundreds.
_MOST_RATIO = 100
#: Below this size the ratio says nothing: a mask of one class is nearly empty.
_FREE_BYTES = 64 * 1024 * 1024
_CHUNK = 1024 * 1024


@dataclass(frozen=True)
class _Member:
    name: str
    size: int
    content: IO[bytes]


def unpack(archive: Path, out: Path) -> dict[str, int | str]:
    """Unpacks a zip or tar archive into a new or empty folder; it appears there only when all is well.

    Args:
        archive: .zip, .tar, .tar.gz, .tgz, .tar.bz2 or .tar.xz.
        out: folder.

    Returns:
        ``{"out", "files", "bytes"}``.

    Raises:
        UserError: no readable archive; a member that would leave the folder, is a link or a device, or is
            there twice; content far larger than the archive; ``out`` holds files; no space.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} holds files already: name a new or empty folder")
    partial = out.with_name(f"{out.name}.unpacking")
    if partial.exists():
        shutil.rmtree(partial)
    try:
        partial.mkdir(parents=True)
        files, size = _write_all(archive, partial)
        if out.exists():
            out.rmdir()
        partial.rename(out)
    except UserError:
        raise
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        zlib.error,
        EOFError,
        RuntimeError,
        NotImplementedError,
    ) as error:
        raise UserError(f"{archive} cannot be unpacked ({error}): download it again") from error
    except OSError as error:
        raise UserError(f"{archive} cannot be unpacked to {out}: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return {"out": str(out), "files": files, "bytes": size}


def _write_all(archive: Path, folder: Path) -> tuple[int, int]:
    packed = archive.stat().st_size
    limit = max(_FREE_BYTES, _MOST_RATIO * packed)
    seen: set[str] = set()
    total = 0
    for member in _members(archive):
        target = _inside(archive, folder, member.name)
        name = str(target).casefold()
        if name in seen:
            raise UserError(f"{archive}: member {member.name!r} is there twice; unpack it by hand")
        seen.add(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as handle:
            while chunk := member.content.read(_CHUNK):  # what a header states is not believed
                total += len(chunk)
                if total > limit:
                    raise UserError(
                        f"{archive} is refused: {packed} bytes unpack to more than {limit}, as a bomb does. "
                        "If that is right, unpack it by hand"
                    )
                handle.write(chunk)
    if not seen:
        raise UserError(f"{archive} holds no files")
    return len(seen), total


def _members(archive: Path) -> Iterator[_Member]:
    if not archive.is_file():
        raise UserError(f"{archive}: no such file")
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            for info in file.infolist():
                if info.is_dir():
                    _inside(archive, Path(), info.filename)
                    continue
                if info.external_attr >> 28 == 0xA:
                    raise _link(archive, info.filename)
                with file.open(info) as content:
                    yield _Member(info.orig_filename, info.file_size, content)
        return
    if not tarfile.is_tarfile(archive):
        raise UserError(f"{archive} is no zip or tar archive")
    with tarfile.open(archive) as tar:
        for entry in tar:
            if entry.isdir():
                _inside(archive, Path(), entry.name)
                continue
            content = tar.extractfile(entry) if entry.isreg() else None
            if content is None:
                raise _link(archive, entry.name)
            yield _Member(entry.name, entry.size, content)


def _link(archive: Path, name: str) -> UserError:
    return UserError(f"{archive} is refused: member {name!r} is a link or a device, no plain file")


def _inside(archive: Path, folder: Path, name: str) -> Path:
    """Where a member goes.

    Raises:
        UserError: outside the folder.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or "\0" in name or (path.parts and ":" in path.parts[0]):
        raise UserError(f"{archive} is refused: member {name!r} would leave the folder; nothing was unpacked")
    return folder.joinpath(*path.parts)
