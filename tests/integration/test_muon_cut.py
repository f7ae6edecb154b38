"""Matrices that a cut of ZeRO goes through are trained as whole ones are."""

import os
import subprocess
import sys

import pytest

from tests.train_runs import ROOT

pytestmark = pytest.mark.integration


def test_a_cut_through_any_matrix_changes_nothing():
    done = subprocess.run(
        [
            sys.executable,
            *["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "tests.muon_cut"],
        ],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
