"""One job in a folder, a run's or a store's: a lease with a heartbeat, the same on an object store.

The holder writes ``lease.json`` and renews it. A job that crashed stops renewing, so the lease falls to the
next one: at once where the dead process can be looked at (same machine), else when it has run out. Whoever
writes for a job asks its :class:`Hold` first, so that a job thought dead writes nothing.

A renewal never lands on a successor's lease, however late it arrives: on a disk it goes into the file that
this holder made, which a successor has replaced by another; on S3 it is conditional on the object's ETag.
"""

import errno
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import psutil

from pipelines.storage.filesystem import storage_errors
from unigeoseg.errors import UserError

logger = logging.getLogger(__name__)
LEASE = "lease.json"
#: What is advised where a run is held.
OTHER_RUN = "choose another run with --run"
#: After taking a lease over, seconds until it is read again: another job may have done the same.
_SETTLE = {False: 0.2, True: 2.0}
#: Share of a lease's time after which a writer looks again.
_SAFE = 0.75
#: A lease's bytes on a disk, whatever it says: it is renewed in place.
_BYTES = 1024


class LeaseLostError(RuntimeError):
    """Another job holds the folder now."""


class Leased(Protocol):
    """A folder that is held: a run's, or :class:`LeasedFolder`."""

    @property
    def fs(self) -> Any:
        """Its filesystem."""
        ...

    @property
    def root(self) -> str:
        """Its path on the filesystem."""
        ...

    @property
    def path(self) -> str:
        """Its path as people know it."""
        ...

    @property
    def remote(self) -> bool:
        """Whether it is on an object store."""
        ...


@dataclass(frozen=True)
class LeasedFolder:
    """Any folder that can be held, by the names of :class:`Leased`."""

    fs: Any
    root: str
    path: str
    remote: bool


@dataclass(frozen=True)
class Holder:
    """Who holds a folder.

    Attributes:
        token: of this one start of a job.
        host: name of its driver's machine.
        place: machine and process namespace, to know whether ``pid`` means anything here.
        pid: of the driver.
        born: when that process started, seconds since 1970 (process numbers are used again).
        beat: last sign of life, seconds since 1970.
        seconds: how long it counts.
    """

    token: str
    host: str
    place: str
    pid: int
    born: float
    beat: float
    seconds: float

    @property
    def alive(self) -> bool:
        """Whether the job may still be at work."""
        if self.place == _place():
            try:
                return abs(psutil.Process(self.pid).create_time() - self.born) < 2.0
            except psutil.Error:
                return False
        return time.time() - self.beat < self.seconds


def holder_of(run: Leased) -> Holder | None:
    """Who holds the folder, dead or alive; ``None`` when nobody does."""
    try:
        run.fs.invalidate_cache()
        return Holder(**json.loads(run.fs.cat_file(f"{run.root}/{LEASE}")))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, TypeError):  # written by something else; the next holder replaces it
        return Holder("", "unknown", "", 0, 0.0, 0.0, 0.0)


def check_held(run: Leased, token: str) -> Holder:
    """Makes sure that the folder is still the job's; its lease.

    Raises:
        LeaseLostError: another job took it over, or it was given up.
    """
    found = holder_of(run)
    if found is None or found.token != token:
        now = f"process {found.pid} on {found.host}" if found else "nobody"
        raise LeaseLostError(
            f"{run.path} is not this job's any more (held by {now}); this job writes nothing more to it"
        )
    return found


class Hold:
    """What a writer of a job knows of its lease: asked before each write.

    A lease of another machine is not taken over before it has run out, so that one on an object store is read
    again only when the last look is nearly that old. On a disk the job's driver may be seen dead at once, and
    each look is cheap.

    Args:
        run: the folder.
        token: of the lease.
    """

    def __init__(self, run: Leased, token: str) -> None:
        self._run, self._token, self._until = run, token, 0.0

    def check(self) -> None:
        """Nothing while the folder is the job's, or while storage does not tell.

        Raises:
            LeaseLostError: another job took it over, or it was given up.
        """
        if self._run.remote and time.time() < self._until:
            return
        try:
            found = check_held(self._run, self._token)
        except storage_errors() as error:  # what writes there will find the same
            logger.debug("cannot look at the lease of %s: %s", self._run.path, error)
            return
        self._until = found.beat + _SAFE * found.seconds


@contextmanager
def held(run: Leased, seconds: float, other: str = OTHER_RUN) -> Iterator["Lease"]:
    """Holds the folder for as long as the block lasts.

    Raises:
        UserError: another job is at work in it.
    """
    lease = Lease(run, seconds, other)
    try:
        yield lease
    finally:
        lease.release()


class Lease:
    """A held folder; renewed by a thread until it is released.

    Args:
        run: the folder, which can be written.
        seconds: without a sign of life for so long, it counts as given up.
        other: what who finds it held may do instead.
    """

    def __init__(self, run: Leased, seconds: float, other: str = OTHER_RUN) -> None:
        self._run, self._seconds, self._other = run, seconds, other
        self.token = uuid.uuid4().hex
        self._file: int | None = None
        self._etag: str | None = None
        self._acquire()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Gives the folder up."""
        self._stop.set()
        self._thread.join()
        with suppress(*storage_errors()):
            found = holder_of(self._run)
            if found is not None and found.token == self.token:
                self._run.fs.rm_file(f"{self._run.root}/{LEASE}")
        if self._file is not None:
            os.close(self._file)

    def _acquire(self) -> None:
        if self._create():
            return
        found = holder_of(self._run)
        if found is not None and found.alive:
            raise UserError(
                f"{self._run.path} is in use by process {found.pid} on {found.host} (last sign of life "
                f"{max(0.0, time.time() - found.beat):.0f} s ago): wait for it, stop it, or {self._other}; "
                f"a job that crashed frees it {found.seconds:.0f} s after its last sign"
            )
        if found is not None:
            logger.warning(
                "taking %s over from process %d on %s, which is gone", self._run.path, found.pid, found.host
            )
            with suppress(FileNotFoundError):
                self._run.fs.rm_file(f"{self._run.root}/{LEASE}")
        created = self._create()
        time.sleep(_SETTLE[self._run.remote])
        now = holder_of(self._run)
        if not created or now is None or now.token != self.token:
            raise UserError(f"another job took {self._run.path} at the same moment; wait for it to end")

    def _content(self) -> bytes:
        own = psutil.Process()
        holder = Holder(
            self.token, socket.gethostname(), _place(), own.pid, own.create_time(), time.time(), self._seconds
        )
        return json.dumps(asdict(holder)).encode().ljust(_BYTES)

    def _create(self) -> bool:
        """Writes the lease unless there is one; whether it did."""
        path = f"{self._run.root}/{LEASE}"
        try:
            if self._run.remote:
                self._etag = _etag(self._run.fs.pipe_file(path, self._content(), mode="create"))
                return True
            partial = Path(f"{path}.{self.token}")
            partial.write_bytes(self._content())
            try:
                os.link(partial, path)  # atomic, with its content, and only if there is none
                self._file = os.open(partial, os.O_WRONLY)
            finally:
                partial.unlink()
        except FileExistsError:
            return self._is_mine()
        except OSError as error:
            if self._run.remote and error.errno == errno.EINVAL:  # s3fs: a precondition failed
                return self._is_mine()
            raise
        return True

    def _is_mine(self) -> bool:
        """Whether the lease that is there is this one: the answer to its writing may have been lost."""
        found = holder_of(self._run)
        return found is not None and found.token == self.token

    def _renew(self) -> None:
        warned = False
        while not self._stop.wait(self._seconds / 4):
            try:
                check_held(self._run, self.token)
                self._write()
                warned = False
            except LeaseLostError as error:
                logger.error("%s", error)
                return
            except storage_errors() as error:
                if not warned:
                    logger.warning("cannot renew the lease of %s (%s); trying on", self._run.path, error)
                warned = True

    def _write(self) -> None:
        """Renews the lease, and no other.

        Raises:
            LeaseLostError: there is another one now.
        """
        if self._file is not None:
            os.pwrite(self._file, self._content(), 0)
            return
        path = f"{self._run.root}/{LEASE}"
        if self._etag is None:  # the answer to the writing was lost, or the store tells none
            self._etag = _etag(self._run.fs.info(path))
            check_held(self._run, self.token)  # read after the tag, which is therefore no later one's
        condition = {"IfMatch": self._etag} if self._etag else {}
        try:
            self._etag = _etag(self._run.fs.pipe_file(path, self._content(), **condition))
        except OSError as error:
            if error.errno != errno.EINVAL:  # s3fs: a precondition failed
                raise
            self._etag = None
            check_held(self._run, self.token)  # it is ours where only the answer to a renewal was lost


def _etag(answer: Any) -> str | None:
    """What tells this state of an object from others, where the store says so."""
    return answer.get("ETag") if isinstance(answer, dict) else None


def _place() -> str:
    """This machine since its start, and this process's namespace of process numbers."""
    parts = [socket.gethostname()]
    for read in (
        lambda: Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        lambda: str(Path("/proc/self/ns/pid").readlink()),
    ):
        with suppress(OSError):
            parts.append(read())
    return " ".join(parts)
