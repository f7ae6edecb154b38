"""Boxes and points as maps: against float64 arithmetic cell by cell, and what a decoder makes of them."""

import numpy as np
import pytest
import torch

from unigeoseg.config import DecoderConfig
from unigeoseg.modules.mask_decoder import MaskDecoder
from unigeoseg.modules.prompt_maps import MAPS, prompt_maps

BOX = [True] * 4 + [False] * 2 + [True]


def given(points: int) -> list[bool]:
    return [True] * 2 * points + [False] * (7 - 2 * points)


def by_hand(numbers, flags, shape):
    """The maps, a cell at a time."""
    h, w = shape
    found = np.zeros((MAPS, h, w))
    for r in range(h):
        for c in range(w):
            x, y = (c + 0.5) / w, (r + 0.5) / h
            if flags[6]:
                x0, x1 = sorted((numbers[0], numbers[2]))
                y0, y1 = sorted((numbers[1], numbers[3]))
                across = max(0.0, min(x1, (c + 1) / w) - max(x0, c / w)) * w
                down = max(0.0, min(y1, (r + 1) / h) - max(y0, r / h)) * h
                u = (x - (x0 + x1) / 2) / max((x1 - x0) / 2, 0.5 / w)
                v = (y - (y0 + y1) / 2) / max((y1 - y0) / 2, 0.5 / h)
                found[:3, r, c] = 1, across * down, np.exp(-(u**2) - v**2)
            elif flags[0]:
                pairs = [(numbers[i], numbers[i + 1]) for i in (0, 2, 4) if flags[i]]
                near = min((x - a) ** 2 + (y - b) ** 2 for a, b in pairs)
                found[3:, r, c] = 1, np.exp(-near * 16**2 / 2), np.exp(-near * 6**2 / 2)
    return found.reshape(MAPS, -1)


@pytest.mark.parametrize("shape", [(8, 8), (5, 12)])
def test_maps_are_those_of_a_cell_by_cell_count(shape):
    rng = np.random.default_rng(0)
    rows = [(rng.random(6), flags) for flags in (BOX, BOX, given(1), given(2), given(3), given(0))]
    rows += [([0.3, 0.3, 0.3, 0.3, 0, 0], BOX), ([0, 0, 1, 1, 0, 0], BOX)]
    maps = prompt_maps(
        torch.tensor(np.array([n for n, _ in rows]), dtype=torch.float32),
        torch.tensor([f for _, f in rows]),
        shape,
    )
    for row, (numbers, flags) in zip(maps, rows, strict=True):
        np.testing.assert_allclose(row, by_hand(np.float32(numbers).astype(float), flags, shape), atol=2e-5)


def decode(maps, coordinates, flags):
    torch.manual_seed(0)
    config = DecoderConfig(hidden=16, heads=2, mask_layers=2, mask_ffn=16, query_width=16, prompt_maps=maps)
    decoder = MaskDecoder(config, [8, 4, 2, 1])
    levels = [torch.randn(1, 16, side, side) for side in (1, 2, 4)]
    prompts = (torch.tensor(coordinates), torch.tensor(flags)) if maps else ()
    index = torch.zeros(3, dtype=torch.int64)
    return decoder, decoder(torch.randn(3, 16), 0.01 * torch.randn(1, 16, 8, 8), levels, index, *prompts)


def test_before_training_the_mask_is_the_box():
    box = [0.25, 0.25, 0.75, 0.5, 0, 0]
    flags = [BOX, given(1), given(0)]
    decoder, predictions = decode(True, [box, [0.5, 0.5, 0, 0, 0, 0], [0.0] * 6], flags)
    wanted = torch.zeros(8, 8, dtype=torch.bool)
    wanted[2:4, 2:6] = True
    assert (predictions[:, 0] > 0).eq(wanted).all()
    assert (predictions[:, 1, 3:5, 3:5] > 0).all() and (predictions[:, 1, 0] < 0).all()
    assert predictions[:, 2].abs().max() < 0.5  # nothing is drawn without a box or point
    predictions.sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in decoder.prompts.parameters())


def test_maps_need_the_coordinates_and_are_off_by_default():
    assert not DecoderConfig().prompt_maps
    decoder, _ = decode(True, [[0.0] * 6] * 3, [given(0)] * 3)
    with pytest.raises(ValueError, match="coordinates"):
        decoder(
            torch.zeros(1, 16), torch.zeros(1, 16, 8, 8), [torch.zeros(1, 16, 1, 1)] * 3, torch.tensor([0])
        )
    assert not any("prompts" in name for name, _ in decode(False, None, None)[0].named_parameters())
