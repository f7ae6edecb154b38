"""Orthogonalised updates against float64, and which parameters they are for."""

import numpy as np
import pytest
import torch

from tests.unit.model.conftest import tiny_config
from unigeoseg.build import build_model
from unigeoseg.optim.orthogonal import matrix_names, orthogonal, step_scale


def _float64(x):
    x = x / np.linalg.norm(x)
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (16, 16), (3, 64), (64, 3)])
def test_it_is_the_iteration_in_float64(shape):
    matrices = np.random.default_rng(0).normal(size=(3, *shape))
    found = orthogonal(torch.tensor(matrices, dtype=torch.float32)).numpy()
    for one, expected in zip(found, matrices, strict=True):
        np.testing.assert_allclose(one, _float64(expected), atol=2e-4)
        values = np.linalg.svd(one, compute_uv=False)
        assert values.min() > 0.3 and values.max() < 1.3


def test_zero_stays_zero_and_lengths_do_not_count():
    assert torch.equal(orthogonal(torch.zeros(2, 4, 6)), torch.zeros(2, 4, 6))
    matrix = torch.randn(1, 8, 12, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(orthogonal(matrix), orthogonal(1e4 * matrix), atol=1e-4, rtol=0)


def test_an_update_is_as_long_as_one_of_adamw():
    """Its elements' root mean square is about 0.2, whatever the shape."""
    for rows, columns in ((32, 128), (128, 128), (300, 40)):
        update = orthogonal(torch.randn(1, rows, columns, generator=torch.Generator().manual_seed(1)))
        assert 0.12 < float(update.square().mean().sqrt()) * step_scale(rows, columns) < 0.25


def test_only_weights_of_hidden_layers_are_turned():
    model = build_model(tiny_config(), 300)
    names = matrix_names(model)
    assert {"query.text.weight", "tate.reasoning.gate.weight", "pixel_decoder.output.0.weight"} <= names
    parameters = dict(model.named_parameters())
    assert all(parameters[name].ndim >= 2 for name in names)
    for word in (
        "embed_tokens",
        "lm_head",
        "patch_embed",
        "level_embed",
        "lkm.memory",
        "tate.reasoning.queries",
    ):
        assert not any(word in name for name in names), word
