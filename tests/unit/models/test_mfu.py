"""Model FLOPs utilisation."""

import pytest

from pipelines.config import Config
from pipelines.models.info import flops_of_parts
from pipelines.models.mfu import Utilisation
from tests.train_runs import tiny_values


def _config(precision):
    return Config.model_validate(tiny_values(**{"train.precision": precision}))


def test_it_is_arithmetic_over_time_and_peak():
    config = _config("bf16")
    image, instruction = flops_of_parts(config, 96)
    assert image > 0 and instruction > 0
    found = Utilisation(config, 2, gpu="NVIDIA H100 80GB HBM3")(3, 12, 12 * 96, 0.5)
    assert found == pytest.approx((3 * image + 12 * instruction) / 0.5 / (2 * 989e12))


@pytest.mark.parametrize(
    ("precision", "gpu"), [("bf16", None), ("bf16", "Some Card"), ("fp32", "NVIDIA H100 80GB HBM3")]
)
def test_it_is_absent_where_the_peak_is_unknown(precision, gpu):
    assert Utilisation(_config(precision), 1, gpu=gpu)(1, 1, 96, 1.0) is None
