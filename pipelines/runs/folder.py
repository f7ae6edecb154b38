"""The run folder, local or on an object store, behind one face.

A local run is written in place. For a remote one each process works on a mirror of its own in its scratch
folder; files are uploaded when they are published, because object stores cannot append.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from pipelines.storage.background import Patience, PatientFiles
from pipelines.storage.filesystem import is_remote, open_filesystem, storage_errors
from pipelines.storage.growing import GrowingObject
from pipelines.storage.lease import Hold
from pipelines.storage.retry import Retry
from pipelines.storage.scratch import scratch_folder
from unigeoseg.errors import UserError

_Result = TypeVar("_Result")

#: Names inside a run folder (contracts of the project).
CONFIG, SUMMARY, METRICS, LEDGER = "config.yaml", "summary.json", "metrics.jsonl", "ledger.jsonl"
ENVIRONMENT = "environment.json"
#: A configuration that repeats an adaptive run's plan: the chosen shares are in ``pts.record``.
REPLAY = "replay.yaml"
CHECKPOINTS, EXPORT, TOKENIZER = "checkpoints", "export", "tokenizer"


_FOR_PEOPLE = Retry(patience_s=30.0)


class RunFolder:
    """One run's folder.

    Args:
        path: a folder or ``s3://bucket/prefix``.
        retry: how an object store's errors are met; by default with the patience of a person who waits.

    Attributes:
        fs: the filesystem; an object store's repeats what is refused.
        path: absolute, or with its protocol; another process can open the same run with it.
        remote: whether it is on an object store.
        base: the local folder where this process writes.
        patience: repeats what storage refuses.
        hold: the job's lease, which what is written depends on; ``None`` where nobody else can be at work.
    """

    hold: Hold | None = None

    def __init__(self, path: str | Path, retry: Retry = _FOR_PEOPLE) -> None:
        self.remote, self._retry = is_remote(path), retry
        self.patience = Patience(retry)
        self.fs: Any
        if self.remote:  # repetitions are ours: bounded in time, and counted
            files, self.root = open_filesystem(path, attempts=1)
            self.fs = PatientFiles(files, self.patience)
        else:
            self.fs, self.root = open_filesystem(path)
        self.path = str(path).rstrip("/") if self.remote else self.root
        self.base = scratch_folder() if self.remote else Path(self.root)
        self._growing: dict[str, GrowingObject] = {}

    @property
    def name(self) -> str:
        """The run's name, the last part of its path."""
        return self.root.rsplit("/", 1)[-1]

    @property
    def retries(self) -> int:
        """How often what storage refused was repeated."""
        return self.patience.retries

    def patiently(self, work: Callable[[], _Result]) -> _Result:
        """The result of ``work``, which reads streams of an object store and may be run again."""
        return self.patience(work) if self.remote else work()

    def check_held(self) -> None:
        """Before anything is written.

        Raises:
            LeaseLostError: the run is another job's now.
        """
        if self.hold is not None:
            self.hold.check()

    def local(self, name: str) -> Path:
        """Where this process writes ``name``; its parent folder exists afterwards."""
        path = self.base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def exists(self, name: str) -> bool:
        """Whether ``name`` is in the run (published, when it is remote)."""
        return bool(self.fs.exists(f"{self.root}/{name}"))

    def read_json(self, name: str) -> dict[str, Any]:
        """The object in a published file; empty where there is no such file, or it holds no object."""
        try:
            content = json.loads(self.fs.cat_file(f"{self.root}/{name}"))
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def write_json(self, name: str, content: Mapping[str, Any], indent: int | None = None) -> None:
        """Writes and publishes an object, whole or not at all: a full disk leaves the one before.

        Raises:
            LeaseLostError: the run is another job's now.
        """
        path = self.local(name)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(content, indent=indent) + "\n", encoding="utf-8")
        partial.replace(path)
        self.publish(name)

    def publish(self, *names: str) -> None:
        """Uploads files or folders of the mirror; nothing to do for a local run.

        Raises:
            LeaseLostError: the run is another job's now.
        """
        self.check_held()
        if not self.remote:
            return
        for name in names:
            path = self.base / name
            files = [p for p in sorted(path.rglob("*")) if p.is_file()] if path.is_dir() else [path]
            for file in files:
                if file.is_file():
                    self.fs.put_file(str(file), f"{self.root}/{file.relative_to(self.base).as_posix()}")

    def publish_growing(self, *names: str) -> None:
        """Uploads what files hold at this moment, while another thread appends to them.

        Of long ones only what is new goes up. Nothing else may write them in between.
        """
        self.check_held()
        for name in names:
            if self.remote and (self.base / name).is_file():
                growing = self._growing.setdefault(name, GrowingObject(self.fs, f"{self.root}/{name}"))
                growing.send(self.base / name)

    def fetch(self, name: str) -> bool:
        """Brings a published file or folder into the mirror; whether there was one."""
        if not self.remote:
            return (self.base / name).exists()
        self.fs.invalidate_cache()
        files = self.fs.find(f"{self.root}/{name}") if self.fs.exists(f"{self.root}/{name}") else []
        for file in files:
            target = self.base / str(file).partition(f"{self.root}/")[2]  # some begin with a slash
            target.parent.mkdir(parents=True, exist_ok=True)
            self.fs.get_file(file, str(target))
        return bool(files)

    def check_writable(self) -> None:
        """Writes and removes a small file, so that a missing permission shows before training.

        Raises:
            UserError: the folder cannot be made or written.
        """
        probe = f"{self.root}/.write-test"
        try:
            files = self.fs
            if self.remote:  # somebody is waiting for the start
                files, _ = open_filesystem(self.path, attempts=1)
                short = replace(self._retry, patience_s=min(20.0, self._retry.patience_s))
                files = PatientFiles(files, Patience(short))
            else:
                files.makedirs(self.root, exist_ok=True)
            files.pipe_file(probe, b"ok")
            files.rm_file(probe)
        except storage_errors() as error:
            detail = str(error).strip() or type(error).__name__
            raise UserError(
                f"cannot write to the run folder {self.path}: {detail}; choose another with --run or set its "
                "permissions (for s3://, the credentials and AWS_ENDPOINT_URL)"
            ) from error

    def close(self) -> None:
        """Removes the mirror of a remote run."""
        if self.remote:
            shutil.rmtree(self.base, ignore_errors=True)
