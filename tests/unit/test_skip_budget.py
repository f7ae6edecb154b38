"""What did not run is said at the end of a suite, and may be limited."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT

SUITE = """
import pytest

@pytest.mark.parametrize("n", range(3))
def test_needs_files(n):
    pytest.skip("/nowhere/shared is missing")

@pytest.mark.skipif(True, reason="no CUDA device")
def test_needs_a_gpu():
    pass

def test_runs():
    pass
"""


def suite(folder, *options):
    (folder / "test_some.py").write_text(SUITE)
    (folder / "conftest.py").write_text("from tests.conftest import *\n")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("processes", [("-p", "no:xdist"), ("-n", "1")])
def test_skipped_tests_are_listed_by_reason(tmp_path, processes):
    done = suite(tmp_path, *processes)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 tests did not run, 1 passed" in done.stdout
    lines = [line.split() for line in done.stdout.splitlines() if "test_some.py" in line and "(" in line]
    assert [line[0] for line in lines][:2] == ["3", "1"]
    assert "3  /nowhere/shared is missing" in done.stdout and "1  no CUDA device" in done.stdout


def test_more_than_a_limit_fails(tmp_path):
    assert suite(tmp_path, "-p", "no:xdist", "--most-skips", "4").returncode == 0
    done = suite(tmp_path, "-p", "no:xdist", "--most-skips", "3")
    assert done.returncode == 1 and "4 tests did not run, 1 passed, 3 allowed" in done.stdout
