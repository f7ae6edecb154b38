"""A local cluster is written down first, and its end removes what it made and nothing else."""

import os
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from cluster.errors import InputError
from cluster.local import postgres
from cluster.local.cluster import down, status
from cluster.local.interruption import undisturbed, unwinding
from cluster.local.processes import MARK, marked_processes
from cluster.local.state import begin, read_state, write_state
from jobs.cli import cli, run


def call(capfd, *arguments):
    """A command that runs to its end; its exit code and what it said."""
    capfd.readouterr()
    with pytest.raises(SystemExit) as caught:
        run(cli, [str(part) for part in arguments])
    found = capfd.readouterr()
    return caught.value.code or 0, found.out + found.err


def _written(folder, identity="one"):
    """A cluster that runs, as far as its files say."""
    begun = begin(folder, identity)
    (Path(begun.temp) / "session").mkdir()
    (Path(begun.temp) / "session" / "log").write_text("x")
    (folder / "ray_token").write_text("t")
    write_state(folder, replace(begun, gcs="127.0.0.1:1", dashboard="http://127.0.0.1:9"))
    return begun


def test_down_leaves_every_file_that_was_there_before(tmp_path, capfd):
    runs = tmp_path / "runs"
    (runs / "first/checkpoints").mkdir(parents=True)
    (runs / "first/metrics.jsonl").write_text("a run of weeks")
    begun = _written(runs)
    (runs / "late.txt").write_text("came while it ran")
    code, said = call(capfd, "cluster", "down", "--force", "--state", runs)
    assert code == 0, said
    assert sorted(p.name for p in runs.iterdir()) == ["first", "late.txt"]
    assert (runs / "first/metrics.jsonl").read_text() == "a run of weeks"
    assert not Path(begun.temp).exists()


def test_a_folder_that_was_made_for_it_goes_when_nothing_else_is_in_it(tmp_path):
    _written(tmp_path / "state")
    down(tmp_path / "state")
    assert not (tmp_path / "state").exists()
    _written(tmp_path / "state")
    (tmp_path / "state/note").write_text("mine")
    down(tmp_path / "state")
    assert [p.name for p in (tmp_path / "state").iterdir()] == ["note"]


def test_an_empty_folder_that_was_there_stays(tmp_path):
    (tmp_path / "state").mkdir()
    _written(tmp_path / "state")
    down(tmp_path / "state")
    assert (tmp_path / "state").is_dir()


def test_a_temporary_folder_of_another_origin_stays(tmp_path):
    """A state that was copied, or written by hand, does not name what may be deleted."""
    begun = _written(tmp_path / "state")
    shutil.rmtree(begun.temp)
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "a").write_text("x")
    write_state(tmp_path / "state", replace(begun, temp=str(precious), gcs="127.0.0.1:1"))
    down(tmp_path / "state")
    assert (precious / "a").read_text() == "x"


@pytest.mark.parametrize("name", ["environment", "ray_token"])
def test_a_file_of_anothers_is_neither_overwritten_nor_removed(tmp_path, capfd, name):
    (tmp_path / name).write_text("mine")
    code, said = call(capfd, "cluster", "up", "--no-s3", "--state", tmp_path)
    assert code == 2 and name in said and "--state" in said
    assert [p.name for p in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == "mine"


def test_a_strange_state_file_stays_and_no_one_is_told_to_delete_the_folder(tmp_path, capfd):
    (tmp_path / "state.json").write_text('{"tool": "terraform"}')
    for command in ("up", "down", "status"):
        code, said = call(capfd, "cluster", command, "--state", tmp_path)
        assert code == 2 and "another folder with --state" in said
        assert f"delete {tmp_path}" not in said
    assert (tmp_path / "state.json").read_text() == '{"tool": "terraform"}'


def test_it_is_written_down_before_anything_is_started(tmp_path):
    begun = begin(tmp_path / "state", "one")
    found = read_state(tmp_path / "state")
    assert found == begun and found.starting and not found.ready
    assert status(tmp_path / "state") == {"running": False, "stale": False, "starting": True}
    with pytest.raises(InputError, match="another"):
        begin(tmp_path / "state", "two")
    down_without_us(tmp_path / "state")


def down_without_us(folder):
    """``down`` of a cluster whose starter is gone (here it would end the test itself)."""
    begun = read_state(folder)
    (folder / "state.json").unlink()
    from cluster.local import state

    state._write_new(folder / "state.json", state._text(replace(begun, starter=(1, 0.0))))
    down(folder)
    assert not Path(begun.temp).exists() and not folder.exists()


def test_down_finds_the_processes_of_an_up_that_was_killed(tmp_path):
    starter = subprocess.Popen(["sleep", "600"])
    begun = begin(tmp_path / "state", f"killed-{os.getpid()}")
    from cluster.local import state

    (tmp_path / "state/state.json").unlink()
    born = psutil.Process(starter.pid).create_time()
    state._write_new(tmp_path / "state/state.json", state._text(replace(begun, starter=(starter.pid, born))))
    child = subprocess.Popen(["sleep", "600"], env={**os.environ, MARK: begun.id}, start_new_session=True)
    try:
        assert status(tmp_path / "state")["starting"]
        starter.kill()
        starter.wait()
        assert status(tmp_path / "state") == {"running": False, "stale": True, "starting": False}
        assert down(tmp_path / "state") == 1 and not marked_processes(begun.id)
        assert not (tmp_path / "state").exists() and not Path(begun.temp).exists()
    finally:
        child.kill()
        child.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_closed_terminal_unwinds_and_does_not_disturb_the_cleaning(number):
    before = signal.getsignal(number)
    cleaned = []
    with pytest.raises(SystemExit) as caught, unwinding():
        try:
            os.kill(os.getpid(), number)
            time.sleep(5)
        except BaseException:
            with undisturbed():
                for again in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
                    os.kill(os.getpid(), again)
                cleaned.append(True)
            raise
    assert caught.value.code == 128 + number and cleaned
    assert signal.getsignal(number) == before


def test_initdb_that_fails_removes_no_folder_that_was_there(tmp_path, monkeypatch):
    monkeypatch.setattr(postgres.shutil, "which", lambda name: "/bin/false")
    monkeypatch.setattr(postgres, "_other_user", lambda: None)
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres/dump.sql").write_text("a backup")
    with pytest.raises(InputError, match="holds files and no database"):
        postgres.start_postgres(tmp_path, tmp_path, {})
    assert (tmp_path / "postgres/dump.sql").read_text() == "a backup"
    (tmp_path / "postgres/dump.sql").unlink()
    with pytest.raises(InputError, match="initdb failed"):
        postgres.start_postgres(tmp_path, tmp_path, {})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["postgres", "postgres.log"]
