"""What is dropped depends on step, sample, position, channel and module, and on nothing else of the batch."""

import numpy as np
import pytest
import torch

from unigeoseg.modules.dropout import SampleDropout, draw_dropout, mixed
from unigeoseg.modules.packing import Packing


def lowbias32(word):
    """The mixer in Python's whole numbers."""
    word ^= word >> 16
    word = word * 0x7FEB352D % 2**32
    word ^= word >> 15
    word = word * 0x846CA68B % 2**32
    return word ^ word >> 16


def drawn(p, keys, length, seed, packing=None, on_tokens=False, number=0):
    module = SampleDropout(p, on_tokens, number).train()
    draw_dropout([module], torch.tensor(keys), length, packing, seed)
    return module


def test_the_mixer_is_the_published_one():
    words = [0, 1, 2, 0xFFFFFFFF, 0x80000000, 123456789]
    assert mixed(torch.tensor(words)).tolist() == [lowbias32(word) for word in words]


def test_each_draw_is_a_hash_of_where_it_is():
    keys, p, seed, number = [7, 4_000_000_000], 0.3, 2**40 + 5, 3
    found = drawn(p, keys, 6, seed, number=number)(torch.ones(2, 4, 5))
    for b, key in enumerate(keys):
        sample = lowbias32((key + lowbias32(seed % 2**32)) % 2**32)
        for position in range(4):
            place = lowbias32((sample + position * 0x85EBCA77) % 2**32)
            for channel in range(5):
                word = lowbias32((place + channel * 0x9E3779B1 + number * 0xC2B2AE3D) % 2**32)
                kept = word >> 8 >= round(p * 2**24)
                assert found[b, position, channel] == pytest.approx(1 / (1 - p) if kept else 0)


def test_a_sample_is_dropped_alike_in_any_batch_and_anew_at_each_step():
    rng = np.random.default_rng(0)
    keys, x = rng.integers(0, 2**32, 8).tolist(), torch.randn(8, 12, 64)
    whole = drawn(0.5, keys, 20, 3)(x)
    for part in (slice(0, 2), slice(5, 6), slice(2, 8)):
        assert torch.equal(drawn(0.5, keys[part], 31, 3)(x[part]), whole[part])  # padded to another length
    assert not torch.equal(drawn(0.5, keys, 20, 4)(x), whole)
    assert not torch.equal(drawn(0.5, keys, 20, 3, number=1)(x), whole)
    assert not torch.equal(whole[0] == 0, whole[1] == 0)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_the_share_is_right_and_draws_are_not_related(p):
    keys = np.random.default_rng(1).integers(0, 2**32, 64).tolist()
    dropped = (drawn(p, keys, 40, 11)(torch.ones(64, 40, 128)) == 0).double()
    sigma = (p * (1 - p) / dropped.numel()) ** 0.5
    assert abs(dropped.mean().item() - p) < 5 * sigma
    centred = dropped - p
    for dim in range(3):  # neighbours along each dimension
        size = dropped.shape[dim] - 1
        near = (centred.narrow(dim, 0, size) * centred.narrow(dim, 1, size)).mean().item()
        assert abs(near) < 5 * p * (1 - p) / dropped.numel() ** 0.5


def test_packed_tokens_are_dropped_as_in_the_padded_batch():
    keys, x = [5, 6], torch.randn(2, 4, 16)
    places = torch.tensor([[0, 1, 2, 0], [0, 3, 4, 5]])  # a common first token; the first row has three
    packing = Packing(places, torch.tensor([0, 1, 2, 5, 6, 7]))
    padded = drawn(0.4, keys, 4, 9, on_tokens=True)(x)
    packed = drawn(0.4, keys, 4, 9, packing, on_tokens=True)(packing.pack(x))
    assert torch.equal(packed, packing.pack(padded))


def test_nothing_is_dropped_in_evaluation_and_the_gradient_follows_the_mask():
    module = drawn(0.5, [1, 2], 3, 0)
    x = torch.randn(2, 3, 4, requires_grad=True)
    y = module(x)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(gradient, (y != 0).float() * 2)
    assert torch.equal(module.eval()(x), x)
    undrawn = SampleDropout(0.5).train()
    torch.manual_seed(0)
    one = undrawn(x)
    torch.manual_seed(0)
    assert torch.equal(one, torch.nn.functional.dropout(x, 0.5))
