"""How many micro-batches a step is split into changes no bit of the gradient's sum, in bfloat16 too."""

import json

import pytest

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    ("stage", "dtype", "equal"), [(2, "fp32", True), (3, "fp32", True), (2, "bf16", False)]
)
def test_equal_gradients_sum_to_a_multiple_in_float32_alone(stage, dtype, equal, run_module):
    done = run_module("tests.bf16_sums", stage, dtype, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr[-3000:]
    once, often = json.loads(done.stdout.splitlines()[-1])
    assert (once == often) is equal
    assert once == pytest.approx(often, rel=1e-3)
