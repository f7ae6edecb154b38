"""Dropout whose draws depend on the step and the sample, not on which samples share its batch.

A generator that runs through a batch gives a sample other numbers when the batch is cut otherwise, so that
one worker with eight images and two with four would train differently. Here each number is a hash of (step,
sample, position, channel), the 32-bit mixer "lowbias32" (Wellons 2018), computed on the device in whole
numbers: the same on every device, and the same again when activations are recomputed.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from unigeoseg.modules.packing import Packing

_WORD = 0xFFFFFFFF
#: Odd numbers that keep a hash's inputs apart.
_CHANNEL, _POSITION, _MODULE = 0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D
#: Of a hash, as many bits as float32 holds exactly.
_BITS = 24


def mixed(words: Tensor) -> Tensor:
    """Well-mixed words of words, int64 in [0, 2^32)."""
    words = words ^ (words >> 16)
    words = (words * 0x7FEB352D) & _WORD
    words = words ^ (words >> 15)
    words = (words * 0x846CA68B) & _WORD
    return words ^ (words >> 16)


class SampleDropout(nn.Module):
    """Sets a share of ``[..., d]`` to zero and scales the rest.

    Args:
        p: the share.
        on_tokens: it lies inside the language model, whose tokens may be packed.
        number: tells its draws from another module's.
    """

    #: A word for each place of the input's leading dimensions; without words torch's own generator draws.
    words: Tensor | None = None

    def __init__(self, p: float, on_tokens: bool = False, number: int = 0) -> None:
        super().__init__()
        self.p, self.on_tokens, self._number = p, on_tokens, number

    def extra_repr(self) -> str:
        """For ``repr``."""
        return f"p={self.p}"

    def forward(self, x: Tensor) -> Tensor:
        """As ``torch.nn.Dropout``."""
        if not self.training or not self.p:
            return x
        if self.words is None:
            return nn.functional.dropout(x, self.p, True)
        places = self.words[:, : x.shape[1]]  # of a text's positions; a packed row has them all
        channels = torch.arange(x.shape[-1], device=x.device) * _CHANNEL + self._number * _MODULE
        draws = mixed((places[..., None] + channels) & _WORD) >> (32 - _BITS)
        return x * (draws >= round(self.p * 2**_BITS)).to(x.dtype) / (1 - self.p)


def draw_dropout(
    modules: Iterable[SampleDropout], keys: Tensor, length: int, packing: Packing | None, seed: int
) -> None:
    """Sets what the next pass drops, until the next call.

    Args:
        modules: of a model.
        keys: int64 ``[B]`` in [0, 2^32), of the samples of the batch that it will see.
        length: positions of its sequences.
        packing: of the batch.
        seed: of the step, the same on every rank.
    """
    chosen = [module for module in modules if module.p]
    if not chosen:
        return
    positions = torch.arange(length, device=keys.device) * _POSITION
    samples = mixed((keys + mixed(torch.tensor(seed & _WORD))) & _WORD)
    words = mixed((samples[:, None] + positions) & _WORD)  # [B, L]
    tokens = words if packing is None else words.flatten().index_select(0, packing.first)[None]
    for module in chosen:
        module.words = tokens if module.on_tokens else words
