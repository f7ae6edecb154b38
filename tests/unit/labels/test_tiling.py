import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipelines.config.building import TileConfig
from pipelines.labels.tiling import starts, windows


@given(st.integers(1, 3000), st.integers(32, 600), st.integers(16, 600))
def test_windows_cover_the_axis_and_end_at_its_edge(length, size, stride):
    stride = min(stride, size)
    found = starts(length, size, stride)
    covered = np.zeros(length, bool)
    for start in found:
        covered[start : start + size] = True
    assert covered.all()
    assert found == sorted(set(found))
    assert found[-1] == max(length - size, 0)
    assert all(b - a == stride for a, b in itertools.pairwise(found[:-1]))
    assert all(0 < b - a <= stride for a, b in itertools.pairwise(found))


def test_paper_tiles():
    assert [(w.y, w.x) for w in windows(512, 512, TileConfig())] == [(0, 0)]
    assert starts(1024, 512, 256) == [0, 256, 512]
    assert starts(1025, 512, 256) == [0, 256, 512, 513]
    (whole,) = windows(300, 400, TileConfig())
    assert (whole.height, whole.width) == (300, 400)
    assert [(w.height, w.width, w.x) for w in windows(509, 544, TileConfig())] == [
        (509, 512, 0),
        (509, 512, 32),
    ]
