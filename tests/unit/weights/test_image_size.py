"""An export starts a training on larger or smaller images: only the connector's norms have a size."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from tests.unit.model.conftest import tiny_config
from unigeoseg.errors import UserError
from unigeoseg.export import save_export
from unigeoseg.model import UniGeoSeg
from unigeoseg.samples.prompts import template_texts
from unigeoseg.samples.tokens import train_tokenizer
from unigeoseg.weights.export_file import load_export_weights

NORMS = [f"connector.norm{n}.{kind}" for n in (1, 2) for kind in ("weight", "bias")]


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    torch.manual_seed(3)
    model = UniGeoSeg(tiny_config(image_size=128), 300)
    with torch.no_grad():
        for name in NORMS:
            model.get_parameter(name).normal_()
    save_export(folder, model, train_tokenizer(template_texts("") * 2, 300, folder / "words"))
    return model, folder


def _resampled(values, side):
    """By hand: each new cell's centre lies between four old centres; beyond the outermost, these count."""
    old = values.shape[-1]
    found = np.zeros((len(values), side, side))
    for row in range(side):
        for column in range(side):
            at = [min(max((i + 0.5) * old / side - 0.5, 0), old - 1) for i in (row, column)]
            low = [math.floor(v) for v in at]
            high = [min(v + 1, old - 1) for v in low]
            (y, x) = (v - w for v, w in zip(at, low, strict=True))
            found[:, row, column] = (
                values[:, low[0], low[1]] * (1 - y) * (1 - x)
                + values[:, low[0], high[1]] * (1 - y) * x
                + values[:, high[0], low[1]] * y * (1 - x)
                + values[:, high[0], high[1]] * y * x
            )
    return found


@pytest.mark.parametrize("size", [64, 192])
def test_norms_are_resampled_and_everything_else_is_taken_as_it_is(export, size):
    before, folder = export
    torch.manual_seed(4)
    after = UniGeoSeg(tiny_config(image_size=size), 300)
    report = load_export_weights(after, folder)
    assert not report.missing
    side = size // 32
    assert f"norms went from 4 x 4 to {side} x {side} positions" in report.summary()
    found = after.state_dict()
    for name, value in before.state_dict().items():
        if name in NORMS:
            expected = torch.tensor(_resampled(value.double().numpy(), side))
            torch.testing.assert_close(found[name].double(), expected, rtol=1e-5, atol=1e-6)
        else:
            assert torch.equal(found[name], value), name


def test_the_same_size_is_not_touched_and_another_width_is_refused(export):
    before, folder = export
    after = UniGeoSeg(tiny_config(image_size=128), 300)
    report = load_export_weights(after, folder)
    assert "image size" not in report.summary()
    assert all(torch.equal(v, after.state_dict()[k]) for k, v in before.state_dict().items())
    small = tiny_config(image_size=64)
    wider = dataclasses.replace(small, language=dataclasses.replace(small.language, hidden_size=64))
    with pytest.raises(UserError, match="other sizes"):
        load_export_weights(UniGeoSeg(wider, 300), folder)
