"""Orthogonalised updates against float64, and which parameters they are for."""

import numpy as np
import pytest
import torch

import unigeoseg.optim.orthogonal as orthogonal_module
from tests.unit.model.conftest import tiny_config
from unigeoseg.build import build_model
from unigeoseg.optim.orthogonal import matrix_names, orthogonal, step_scale

ROUNDS = orthogonal_module._ROUNDS


def _float64(x):
    """As it is written down, with the margins of 1.01."""
    x = x / (1.01 * np.linalg.norm(x))
    for number, (a, b, c) in enumerate(ROUNDS):
        wide = 1.01 if number < 2 else 1.0
        square = x @ x.T / wide**2
        x = (a * x + (b * square + c * square @ square) @ x) / wide
    return x


def test_each_polynomial_is_the_nearest_to_one_on_what_the_last_left():
    """Chebyshev: the error is largest at both ends and twice between, and changes its sign each time."""
    low, high = 0.01, 1.0
    for a, b, c in ROUNDS:
        extremes = np.sqrt(np.roots([5 * c, 3 * b, a]))
        assert np.isreal(extremes).all() and ((low < extremes) & (extremes < high)).all()
        points = np.array([low, *sorted(extremes), high])
        errors = 1 - (a * points + b * points**3 + c * points**5)
        np.testing.assert_allclose(errors * [1, -1, 1, -1], errors[0], rtol=1e-4)
        low, high = 1 - errors[0], 1 + errors[0]
    assert low > 0.72 and high < 1.28


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (16, 16), (3, 64), (64, 3)])
def test_it_is_the_rounds_in_float64(shape):
    matrices = np.random.default_rng(0).normal(size=(3, *shape))
    found = orthogonal(torch.tensor(matrices, dtype=torch.float32)).numpy()
    for one, expected in zip(found, matrices, strict=True):
        np.testing.assert_allclose(one, _float64(expected), atol=2e-4)
        known = np.linalg.svd(expected / np.linalg.norm(expected), compute_uv=False)
        values = np.linalg.svd(one, compute_uv=False)
        assert (values > np.minimum(0.72, 70 * known)).all() and values.max() < 1.28


@pytest.mark.parametrize("rank", [1, 2, 24])
def test_what_bfloat16_rounds_does_not_grow(rank):
    """As on a GPU; a matrix of rank one has the largest singular value that there can be."""
    generator = torch.Generator().manual_seed(rank)
    for shape in ((24, 40), (40, 24), (24, 24)):
        left, right = (torch.randn(side, rank, generator=generator) for side in shape)
        matrix = left @ right.T
        matrix = (matrix.T if shape[0] > shape[1] else matrix)[None]
        found = orthogonal_module._by_rounds((matrix / 1.01 / matrix.norm()).bfloat16()).float()
        values, known = torch.linalg.svdvals(found[0]), torch.linalg.svdvals(matrix[0] / matrix.norm())
        assert values[: (known > 0.02).sum()].min() > 0.6 and values.max() < 1.4


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
