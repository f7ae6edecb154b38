"""Storage that does not answer is waited for, and never taken for storage that says no."""

import json
import time

import fsspec
import pytest
from ray.train import FailureConfig
from ray.train.v2._internal.execution.failure_handling import FailureDecision
from ray.train.v2.api.exceptions import WorkerGroupError

from pipelines.runs.folder import RunFolder
from pipelines.runs.manifest import checkpoint_name, find_problem, newest_checkpoint
from pipelines.storage.background import Patience, PatientFiles
from pipelines.storage.lease import Lease
from pipelines.storage.retry import Retry, ShortRead
from pipelines.train.driver import restarts
from pipelines.train.driver.restarts import FailuresInARow
from unigeoseg.errors import UserError

SHORT = Retry(patience_s=0.2, refused_s=0.1, first_s=0.01, longest_s=0.02)


class _Flaky:
    """Raises the errors first, then answers."""

    def __init__(self, *errors):
        self.errors, self.calls = list(errors), 0

    def cat_file(self, path):
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return path


def test_what_fails_for_a_moment_is_repeated_and_counted():
    files = _Flaky(ConnectionError("reset"), PermissionError("for a moment"), OSError(121, "remote"))
    patience = Patience(SHORT)
    patient = PatientFiles(files, patience)
    assert patient.cat_file("a") == "a"
    assert (files.calls, patience.retries) == (4, 3)


@pytest.mark.parametrize(
    "answer", [FileNotFoundError("a"), FileExistsError("a"), OSError(22, "precondition")]
)
def test_an_answer_is_not_repeated(answer):
    files = _Flaky(answer)
    with pytest.raises(type(answer)):
        PatientFiles(files, Patience(SHORT)).cat_file("a")
    assert files.calls == 1


def test_patience_ends():
    with pytest.raises(ConnectionError):
        PatientFiles(_Flaky(*[ConnectionError("reset")] * 100), Patience(SHORT)).cat_file("a")


def test_patience_within_patience_is_had_once():
    """A file of many that are sent: what was given up on it is not begun again with all of them."""
    files = _Flaky(*[ConnectionError("reset")] * 1000)
    patience = Patience(SHORT)
    patient, begun = PatientFiles(files, patience), []

    def work():
        begun.append(time.monotonic())
        patient.cat_file("a")

    with pytest.raises(ConnectionError):
        patience(work)
    assert len(begun) == 1 and files.calls == patience.retries + 1 > 3


def test_what_a_user_can_mend_is_not_waited_for():
    begun = []

    def work():
        begun.append(1)
        raise UserError("another file")

    with pytest.raises(UserError):
        Patience(SHORT)(work)
    assert begun == [1]


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        (PermissionError("no"), True),
        (FileNotFoundError("no"), True),
        (NotADirectoryError("no"), True),
        (ShortRead("8 of 9 bytes"), True),
        (OSError(28, "full"), True),
        (type("NoCredentialsError", (Exception,), {})(), True),
        (ConnectionError("reset"), False),
        (OSError(121, "remote"), False),
    ],
)
def test_how_long_an_error_is_borne(error, refused):
    assert SHORT.allowed(error) == (SHORT.refused_s if refused else SHORT.patience_s)


@pytest.fixture
def run():
    """A run on an object store, of the memory kind, with two checkpoints that are whole."""
    found = RunFolder("memory://patience/run", SHORT)
    for step in (1, 2):
        root = f"{found.root}/{checkpoint_name(step)}"
        found.fs.pipe_file(f"{root}/state.json", json.dumps({"step": step}).encode())
        found.fs.pipe_file(f"{root}/manifest.json", b'{"files": {}}')
        found.fs.pipe_file(f"{root}/COMMITTED", b"")
    yield found
    found.close()
    fsspec.filesystem("memory").rm("/patience", recursive=True)


def test_a_checkpoint_out_of_reach_is_not_damaged(run, monkeypatch):
    assert newest_checkpoint(run).step == 2
    files = fsspec.filesystem("memory")
    run.fs.rm_file(f"{run.root}/{checkpoint_name(2)}/manifest.json")
    assert "FileNotFoundError" in find_problem(run, checkpoint_name(2))

    def away(*_, **__):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(type(files), "cat_file", away)
    with pytest.raises(ConnectionError):
        newest_checkpoint(run)


def test_a_lease_whose_writing_was_not_answered_is_held(run, monkeypatch):
    """The store has it, the answer is lost, and the repetition is told that it is there already."""
    files, calls = fsspec.filesystem("memory"), []
    real = type(files).pipe_file

    def pipe(self, path, value, mode="overwrite", **more):
        if mode != "create":
            return real(self, path, value, **more)
        calls.append(path)
        if len(calls) > 1:
            raise FileExistsError(path)
        real(self, path, value, **more)
        raise ConnectionError("the answer is lost")

    monkeypatch.setattr(type(files), "pipe_file", pipe)
    lease = Lease(run, 60)
    lease.release()
    assert len(calls) == 2 and not run.exists("lease.json")


def test_failures_count_from_the_newest_checkpoint_on(tmp_path, monkeypatch):
    policy = FailuresInARow(FailureConfig(max_failures=1), str(tmp_path))
    error = WorkerGroupError("a worker died", {0: RuntimeError("killed")})

    def commit(step):
        (tmp_path / checkpoint_name(step)).mkdir(parents=True)
        (tmp_path / checkpoint_name(step) / "COMMITTED").touch()

    assert policy.make_decision(error) == FailureDecision.RETRY
    commit(5)
    assert policy.make_decision(error) == FailureDecision.RETRY
    commit(10)
    assert policy.make_decision(error) == FailureDecision.RETRY
    monkeypatch.setattr(restarts, "leaving_nodes", lambda: {"node": 0})
    assert [policy.make_decision(error) for _ in range(3)] == [FailureDecision.RETRY] * 3
    monkeypatch.setattr(restarts, "leaving_nodes", dict)
    assert policy.make_decision(error) == FailureDecision.RAISE
