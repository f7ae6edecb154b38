"""Commands in processes of their own, forked from one in which the libraries are imported already.

To import what trains takes eight seconds of a core, most of what a tiny command needs. Python's fork server
does it once a session; each command is a fork of it, with its own arguments, folder, environment and output.
What is read while libraries are imported is the server's: a command whose environment differs in
``_READ_EARLY`` is started afresh.
"""

import atexit
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
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


class WarmProcess:
    """``python -m module`` as it runs, perhaps as several ranks; with what tests use of ``subprocess.Popen``.

    As under torchrun, a rank that fails ends the others.
    """

    def __init__(
        self,
        module: str,
        words: Sequence[str],
        folder: Path,
        environments: Sequence[dict[str, str]],
        joined: bool,
    ) -> None:
        self._files = tempfile.TemporaryDirectory(prefix="warm-")
        self._out = Path(self._files.name, "out")
        self._err = None if joined else Path(self._files.name, "err")
        for path in (self._out, self._err):
            if path is not None:
                path.touch()
        self._ranks = [
            _context.Process(target=_become, args=(module, words, folder, environment, self._out, self._err))
            for environment in environments
        ]
        for rank in self._ranks:
            rank.start()
        self.pid = self._ranks[0].pid

    @property
    def returncode(self) -> int | None:
        """``None`` while it runs; the negative number of the signal that ended it."""
        codes = [rank.exitcode for rank in self._ranks]
        failed = next((code for code in codes if code), None)
        if failed is not None:
            self.kill()
        return failed if failed is not None else None if None in codes else 0

    def poll(self) -> int | None:
        """The same."""
        return self.returncode

    def wait(self, timeout: float = 300.0) -> int:
        """Waits; the exit status.

        Raises:
            subprocess.TimeoutExpired: it runs on.
        """
        deadline = time.monotonic() + timeout
        while (code := self.returncode) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("python -m", timeout)
            time.sleep(0.02)
        return code

    def communicate(self, timeout: float = 300.0) -> tuple[str, str | None]:
        """Waits; what it printed, and what it printed to stderr unless that goes the same way."""
        self.wait(timeout)
        return self._out.read_text(), None if self._err is None else self._err.read_text()

    def printed(self) -> str:
        """What it printed so far."""
        return self._out.read_text(errors="replace")

    def send_signal(self, number: int) -> None:
        """To every rank that runs."""
        for rank in self._ranks:
            if rank.exitcode is None:
                os.kill(rank.pid or 0, number)

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
) -> Any:
    """Starts ``python -m module arguments…``.

    Args:
        module: its name; ``-c``: the first argument is code.
        arguments: of its command line.
        folder: where it works.
        environment: all of it; this process's own without.
        joined: stderr goes where stdout goes.
        ranks: processes of one group, told as torchrun tells them.

    Returns:
        A :class:`WarmProcess`; a ``subprocess.Popen`` where the environment asks for a fresh one.
    """
    words, chosen = list(map(str, arguments)), dict(os.environ if environment is None else environment)
    if _starts_as(chosen):
        return WarmProcess(module, words, folder, _of_ranks(chosen, ranks), joined)
    return subprocess.Popen(
        [sys.executable, *_of_interpreter(module, ranks), *words],
        cwd=folder,
        env=chosen,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if joined else subprocess.PIPE,
        text=True,
    )


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
    names = {n for n in environment.keys() | _started.keys() if environment.get(n) != _started.get(n)}
    return not any(name.startswith(_READ_EARLY) for name in names)


def _of_interpreter(module: str, ranks: int) -> list[str]:
    if ranks > 1:
        launcher = "-m torch.distributed.run --standalone --nproc-per-node"
        return [*launcher.split(), str(ranks), "-m", "--", module]
    return [module] if module == "-c" else ["-m", module]


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
