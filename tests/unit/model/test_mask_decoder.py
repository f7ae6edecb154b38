"""The mask features on the coarser grids."""

import pytest
import torch

from unigeoseg.modules.mask_decoder import shrink


@pytest.mark.parametrize(
    ("size", "shape"), [((16, 16), (8, 8)), ((16, 16), (2, 2)), ((16, 32), (8, 4)), ((17, 16), (9, 8))]
)
def test_shrinking_is_bilinear_interpolation(size, shape):
    maps = torch.randn(2, 3, *size, dtype=torch.float64)
    expected = torch.nn.functional.interpolate(maps, size=shape, mode="bilinear", align_corners=False)
    torch.testing.assert_close(shrink(maps, shape), expected)
