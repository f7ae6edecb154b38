"""Matrices that a cut of ZeRO goes through are trained as whole ones are."""

import os

import pytest

from tests.warm import run_warm

pytestmark = pytest.mark.integration


def test_a_cut_through_any_matrix_changes_nothing():
    done = run_warm("tests.muon_cut", environment={**os.environ, "OMP_NUM_THREADS": "1"}, ranks=2)
    assert done.returncode == 0, done.stderr[-3000:]
