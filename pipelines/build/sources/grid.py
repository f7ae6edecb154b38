"""Which boxes of an image may touch a window, without a look at all of them for each window."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipelines.labels.tiling import Window

#: Side of a cell in pixels: a window of 512 looks at nine of them at most.
_CELL = 256
#: A box over more cells is looked at for every window: few are so large, and listing them costs memory.
_MOST_CELLS = 64


class Grid:
    """Boxes by the cells of an image that they touch.

    Args:
        boxes: x0, y0, x1, y1 in pixels each; they may reach past the image.
        height: of the image.
        width: of the image.
    """

    def __init__(self, boxes: Sequence[tuple[float, float, float, float]], height: int, width: int) -> None:
        found = np.asarray(boxes, np.float64).reshape(-1, 4)
        # The pixels that a box touches, half open; parts outside the image concern no window.
        low = np.clip(np.floor(found[:, :2]), 0, [width, height])
        high = np.clip(np.ceil(found[:, 2:]), 0, [width, height])
        self._edges: NDArray[np.int64] = np.concatenate([low, high], 1).astype(np.int64)
        self._wide: list[int] = []
        self._cells: dict[tuple[int, int], list[int]] = defaultdict(list)
        for number, (x0, y0, x1, y1) in enumerate(self._edges.tolist()):
            rows, columns = _cells(y0, y1), _cells(x0, x1)
            if len(rows) * len(columns) > _MOST_CELLS:
                self._wide.append(number)
                continue
            for row in rows:
                for column in columns:
                    self._cells[row, column].append(number)

    def near(self, window: Window) -> list[int]:
        """Numbers of the boxes that share a pixel with the window, ascending."""
        bottom, right = window.y + window.height, window.x + window.width
        there = set(self._wide)
        for row in _cells(window.y, bottom):
            for column in _cells(window.x, right):
                there.update(self._cells.get((row, column), ()))
        numbers = np.asarray(sorted(there), np.int64)
        x0, y0, x1, y1 = self._edges[numbers].T
        touching = (x0 < right) & (x1 > window.x) & (y0 < bottom) & (y1 > window.y)
        return [int(number) for number in numbers[touching]]


def _cells(first: int, end: int) -> range:
    """Cells of pixels ``first`` to ``end`` (half open)."""
    return range(first // _CELL, -(-end // _CELL))
