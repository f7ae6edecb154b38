"""Scratch folders: made where asked, swept once their process is gone, checked for room."""

import os
import signal
import subprocess
import sys

import pytest

from pipelines.runs.folder import RunFolder
from pipelines.storage.scratch import check_room, scratch_folder, sweep
from unigeoseg.errors import UserError

ASK = (
    "import os, signal; from pipelines.storage.scratch import scratch_folder as s; f = s(); "
    "(f / 'part').write_text('x'); print(f, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
)


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    monkeypatch.setenv("UNIGEOSEG_SCRATCH", str(tmp_path / "scratch"))
    return tmp_path / "scratch"


def test_what_a_killed_process_left_is_removed_and_nothing_else(scratch):
    own = scratch_folder()
    done = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    left = done.stdout.strip()
    assert os.path.isfile(f"{left}/part")  # noqa: PTH113
    others = [scratch / name for name in ("unigeoseg-run-elsewhere-1-1-abc", "unigeoseg-run-abc", "mine")]
    for folder in others:
        folder.mkdir()
    assert sweep(scratch) == 1
    assert sorted(scratch.iterdir()) == sorted([own, *others])


def test_the_mirror_of_a_remote_run_lies_there_and_goes_with_it(scratch):
    run = RunFolder("memory://runs/a")
    assert run.base.parent == scratch
    run.close()
    assert not any(scratch.iterdir())


def test_too_little_room_is_told_before_training(tmp_path):
    check_room(tmp_path, 1, "a file")
    with pytest.raises(UserError, match=r"a part needs 1024\.0 GiB.*UNIGEOSEG_SCRATCH"):
        check_room(tmp_path, 2**40, "a part")


def test_a_folder_that_cannot_be_made_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("UNIGEOSEG_SCRATCH", str(tmp_path / "file/below"))
    with pytest.raises(UserError, match=r"file/below.*UNIGEOSEG_SCRATCH"):
        scratch_folder()
