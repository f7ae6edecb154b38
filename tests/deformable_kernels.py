"""Compares the GPU kernels of deformable sampling with ``grid_sample`` in float64.

Without a GPU they run in Triton's interpreter, which has to be chosen before Triton is imported; so this is a
program: ``TRITON_INTERPRET=1 python -m tests.deformable_kernels``, or with a GPU
``python -m tests.deformable_kernels cuda``. It prints the largest differences, one line a case.
"""

import sys

import torch
from transformers.models.mask2former.modeling_mask2former import multi_scale_deformable_attention

from unigeoseg.modules.deformable_gpu import SampledRows

SHAPES = ((3, 5), (6, 7), (9, 4))
#: Offsets in pixels stay inside, cross the rims, or lie far outside; 24 channels are no power of two.
CASES = (
    (torch.float32, 8, 0.3, 1e-5),
    (torch.float32, 24, 4.0, 1e-5),
    (torch.float32, 8, 100.0, 1e-5),
    (torch.bfloat16, 24, 4.0, 1.5e-2),
)
QUERIES = 45  # more than a program's block, and not a multiple of it


def arguments(spread, channels, dtype):
    """Values, reference, offsets and weights, on the CPU."""
    generator = torch.Generator().manual_seed(0)
    count = sum(h * w for h, w in SHAPES)

    def made(*shape):
        return torch.randn(*shape, generator=generator).to(dtype)

    value = made(2, count, 2, channels)
    reference = torch.rand(QUERIES, 2, generator=generator)
    return value, reference, made(2, QUERIES, 2, 3, 4, 2) * spread, made(2, QUERIES, 2, 3, 4)


def differences(spread, channels, dtype, device):
    """Largest error of the output and of each gradient, by the largest exact value."""
    value, reference, offsets, weights = arguments(spread, channels, dtype)
    ours = [t.to(device).requires_grad_() for t in (value, offsets, weights)]
    exact = [t.double().requires_grad_() for t in (value, offsets, weights)]
    found = SampledRows.apply(ours[0], SHAPES, reference.to(device), ours[1], ours[2])
    scale = torch.tensor([[w, h] for h, w in SHAPES], dtype=torch.float64)[None, None, None, :, None]
    places = reference.double()[None, :, None, None, None] + exact[1] / scale
    expected = multi_scale_deformable_attention(exact[0], list(SHAPES), places, exact[2])
    towards = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    pairs = [(found, expected)]
    pairs += zip(
        torch.autograd.grad(found, ours, towards.to(device)),
        torch.autograd.grad(expected, exact, towards.double()),
        strict=True,
    )
    assert all(one.dtype == dtype for one, _ in pairs)
    return [
        float((one.detach().double().cpu() - other).abs().max() / other.abs().max().clamp(min=1e-9))
        for one, other in pairs
    ]


def main():
    """Runs all cases; exits with 1 where a difference is too large."""
    device, good = (sys.argv[1] if len(sys.argv) > 1 else "cpu"), True
    for dtype, channels, spread, bound in CASES:
        found = differences(spread, channels, dtype, device)
        good = good and max(found) < bound
        figures = " ".join(f"{value:.1e}" for value in found)
        print(f"{dtype} {channels} channels, offsets of {spread} px: {figures}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
