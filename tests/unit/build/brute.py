"""Slow, plain versions of the construction rules, written from their definitions."""

import numpy as np


def components(labels):
    """8-connected components per category as sets of pixels, by flood fill."""
    height, width = labels.shape
    seen = np.zeros(labels.shape, bool)
    found = []
    for y in range(height):
        for x in range(width):
            if labels[y, x] <= 0 or seen[y, x]:
                continue
            stack, pixels = [(y, x)], []
            seen[y, x] = True
            while stack:
                cy, cx = stack.pop()
                pixels.append((cy, cx))
                for ny in range(max(cy - 1, 0), min(cy + 2, height)):
                    for nx in range(max(cx - 1, 0), min(cx + 2, width)):
                        if not seen[ny, nx] and labels[ny, nx] == labels[y, x]:
                            seen[ny, nx] = True
                            stack.append((ny, nx))
            found.append((int(labels[y, x]), frozenset(pixels)))
    return found


def gap(first, second):
    """Least Euclidean distance between two sets of pixels."""
    a, b = np.asarray(sorted(first)), np.asarray(sorted(second))
    return float(np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1)).min())


def pixels(region):
    """The pixels of a region, as a set."""
    return frozenset(
        (int(y) + region.y0, int(x) + region.x0) for y, x in zip(*np.nonzero(region.crop), strict=True)
    )
