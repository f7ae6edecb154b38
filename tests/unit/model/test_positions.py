"""Learned positions in the mask features and the attended values, and the bias at the foreground's odds."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from tests.unit.model.conftest import tiny_config
from unigeoseg.errors import UserError
from unigeoseg.model import UniGeoSeg
from unigeoseg.modules.mask_decoder import prior_bias
from unigeoseg.modules.pixel_decoder import PositionFeatures


def _with(**decoder):
    config = tiny_config()
    return dataclasses.replace(config, decoder=dataclasses.replace(config.decoder, **decoder))


def test_two_layers_on_the_centres_of_the_cells():
    torch.manual_seed(0)
    features = PositionFeatures(8)
    got = features(torch.zeros(3, 8, 4, 6))[0].detach().double().numpy()
    first, _, second = features.layers
    for row in range(4):
        for column in range(6):
            place = np.array([(2 * column + 1) / 6 - 1, (2 * row + 1) / 4 - 1])
            hidden = first.weight.detach().double().numpy()[:, :, 0, 0] @ place + first.bias.detach().numpy()
            want = second.weight.detach().double().numpy()[:, :, 0, 0] @ np.maximum(hidden, 0)
            np.testing.assert_allclose(
                got[:, row, column], want + second.bias.detach().double().numpy(), atol=1e-5
            )


def test_off_adds_no_parameter_and_on_learns(tokenizer, collator, batch):
    plain, placed = (UniGeoSeg(_with(coordinates=on), tokenizer.vocab_size) for on in (False, True))
    more = placed.state_dict().keys() - plain.state_dict().keys()
    assert more and all(".position" in name for name in more)
    placed(batch, torch.Generator().manual_seed(0)).total.backward()
    for name, parameter in placed.named_parameters():
        if name in more:
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_the_prior_is_where_an_untrained_model_starts(tokenizer, batch):
    torch.manual_seed(0)
    without = UniGeoSeg(_with(), tokenizer.vocab_size)
    biased = UniGeoSeg(_with(prior=0.03), tokenizer.vocab_size)
    missing = biased.load_state_dict(without.state_dict(), strict=False)
    assert missing.missing_keys == ["mask_decoder.bias"] and not missing.unexpected_keys
    assert biased.mask_decoder.bias.item() == pytest.approx(math.log(0.03 / 0.97))
    with torch.no_grad():
        # The first prediction comes before any attention that a bias could turn elsewhere.
        first, _ = without._run(batch)
        moved, _ = biased._run(batch)
    torch.testing.assert_close(moved[0], first[0] + math.log(0.03 / 0.97))


@pytest.mark.parametrize("share", [-0.1, 1.0, 3.0])
def test_a_prior_that_is_no_share_is_refused(share):
    with pytest.raises(UserError, match="is no share of foreground"):
        prior_bias(share)
