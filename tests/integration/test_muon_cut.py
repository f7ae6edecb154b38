"""Matrices that a cut of ZeRO goes through are trained as whole ones are."""

import pytest

pytestmark = pytest.mark.integration


def test_a_cut_through_any_matrix_changes_nothing(run_module):
    ranks = ["--standalone", "--nproc-per-node", 2, "-m", "tests.muon_cut"]
    done = run_module("torch.distributed.run", *ranks, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr[-3000:]
