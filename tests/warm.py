"""Commands in processes of their own, forked from one in which the libraries are imported already.

To import what trains takes eight seconds of a core, most of what a tiny command needs. Python's fork server
does it once a session; each command is a fork of it, with its own arguments, folder, environment and output.
What is read while libraries are imported is the server's: a command whose environment differs in
``_READ_EARLY`` is started afresh.
"""

import atexit
import gc
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from cluster.local.processes import free_ports

ROOT = Path(__file__).parents[1]
#: Nothing of Ray, which is not to be imported where it is not needed.
_IMPORTED = (
    "deepspeed",
    "matplotlib.backends.backend_agg",
    "mlflow.store.tracking.sqlalchemy_store",
    "s3fs",
    "pipelines.train.driver.plain",
    "pipelines.evaluate.final",
    "unigeoseg.build",
)
#: Beginnings of the names of variables that libraries read while they are imported.
_READ_EARLY = (
    *("CC", "CUDA_", "CXX", "HF_", "HOME", "HUGGINGFACE_", "LANG", "LC_", "MKL_", "MPL", "NVIDIA_"),
    *("OMP_", "PATH", "PYTHONHASHSEED", "PYTHONWARNINGS", "TRANSFORMERS_", "XDG_"),
)
_RANKS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_context = multiprocessing.get_context("forkserver")


class Command:
    """``python -m module`` as it runs, perhaps as several ranks; with what tests use of ``subprocess.Popen``.

    As under torchrun, a rank that fails ends the others. What it prints goes to files: nobody has to read.
    """

    def __init__(self, joined: bool) -> None:
        self._files = tempfile.TemporaryDirectory(prefix="warm-")
        self.out = Path(self._files.name, "out")
        self.err = None if joined else Path(self._files.name, "err")
        for path in filter(None, (self.out, self.err)):
            path.touch()
        #: Of each rank, in the order of their ranks: its process, and how to ask for its exit status.
        self._ranks: list[tuple[int, Callable[[], int | None]]] = []
        #: ``None`` while it runs, as far as was looked; the negative number of the signal that ended it.
        self.returncode: int | None = None

    def fork(self, module: str, words: list[str], folder: Path, environment: dict[str, str]) -> None:
        """Starts a rank as a fork."""
        process = _context.Process(
            target=_become, args=(module, words, folder, environment, self.out, self.err)
        )
        process.start()
        assert process.pid is not None
        self._ranks.append((process.pid, lambda: process.exitcode))

    def open(self, words: list[str], folder: Path, environment: dict[str, str]) -> None:
        """Starts a command line afresh."""
        with self.out.open("ab") as out, (self.err or self.out).open("ab") as err:
            process = subprocess.Popen(words, cwd=folder, env=environment, stdout=out, stderr=err)
        self._ranks.append((process.pid, process.poll))

    @property
    def pid(self) -> int:
        """Of the first rank."""
        return self._ranks[0][0]

    def poll(self) -> int | None:
        """The exit status: of the rank that was seen to fail first; ``None`` while it runs."""
        if self.returncode is None:
            codes = [ended() for _, ended in self._ranks]
            self.returncode = next((code for code in codes if code), None if None in codes else 0)
            if self.returncode:
                self.kill()
        return self.returncode

    def wait(self, timeout: float = 300.0) -> int:
        """Waits; the exit status.

        Raises:
            subprocess.TimeoutExpired: it runs on.
        """
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("python -m", timeout, self.printed())
            time.sleep(0.02)
        return code

    def communicate(self, timeout: float = 300.0) -> tuple[str, str]:
        """Waits; what it printed, and what it printed to stderr unless that goes the same way."""
        self.wait(timeout)
        return self.printed(), "" if self.err is None else self.err.read_text(errors="replace")

    def printed(self) -> str:
        """What it printed so far."""
        return self.out.read_text(errors="replace")

    def send_signal(self, number: int) -> None:
        """To every rank that runs."""
        for pid, ended in self._ranks:
            if ended() is None:
                with suppress(ProcessLookupError):  # it ended just now
                    os.kill(pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)


def start_warm(
    module: str,
    *arguments: str | int | Path,
    folder: Path = ROOT,
    environment: Mapping[str, str] | None = None,
    joined: bool = False,
    ranks: int = 1,
) -> Command:
    """Starts ``python -m module arguments…``.

    Args:
        module: its name; ``-c``: the first argument is code.
        arguments: of its command line.
        folder: where it works.
        environment: all of it; this process's own without.
        joined: stderr goes where stdout goes.
        ranks: processes of one group, told as torchrun tells them.
    """
    words, chosen = list(map(str, arguments)), dict(os.environ if environment is None else environment)
    command, forks = Command(joined), _starts_as(chosen)
    fresh = [sys.executable, *([module] if module == "-c" else ["-m", module]), *words]
    for told in _of_ranks(chosen, ranks):
        if forks:
            command.fork(module, words, folder, told)
        else:
            command.open(fresh, folder, told)
    return command


def run_warm(
    module: str, *arguments: str | int | Path, timeout: float = 300.0, **where: Any
) -> subprocess.CompletedProcess[str]:
    """Runs one to its end; ``where`` as for :func:`start_warm`.

    Raises:
        subprocess.TimeoutExpired: it took longer, and was killed.
    """
    process = start_warm(module, *arguments, **where)
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        process.kill()
    return subprocess.CompletedProcess([module, *map(str, arguments)], process.returncode, out, err)


#: The environment in which the libraries are imported.
_started: dict[str, str] = {}


def _starts_as(environment: Mapping[str, str]) -> bool:
    if not _started:
        _started.update(os.environ)
        _context.set_forkserver_preload([*_IMPORTED])
        forkserver.ensure_running()
    names = {n for n in environment.keys() | _started.keys() if environment.get(n) != _started.get(n)}
    return not any(name.startswith(_READ_EARLY) for name in names)


def _of_ranks(environment: dict[str, str], ranks: int) -> list[dict[str, str]]:
    if ranks == 1:
        return [environment]
    (port,) = free_ports(1)
    found = [(rank, rank, ranks, ranks, "127.0.0.1", port) for rank in range(ranks)]
    return [environment | dict(zip(_RANKS, map(str, values), strict=True)) for values in found]


def _become(
    module: str, words: list[str], folder: Path, environment: dict[str, str], out: Path, err: Path | None
) -> None:
    """In the fork: is the command from here on."""
    gc.freeze()  # the collector need not look through a million imported objects, nor copy their pages
    for number, path in ((1, out), (2, err or out)):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    sys.path.insert(0, str(folder))
    sys.argv, tempfile.tempdir = [module, *words], None
    try:
        if module == "-c":
            sys.argv.pop(1)
            exec(compile(words[0], "<code>", "exec"), {"__name__": "__main__"})
        else:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # which a fork ends without
