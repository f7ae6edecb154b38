"""Windows of a fixed size over images of any size."""

from dataclasses import dataclass

from pipelines.config.building import TileConfig

#: Most columns of windows that are cut together.
BAND = 8192


@dataclass(frozen=True)
class Window:
    """A rectangle of an image, in pixels.

    Attributes:
        y: first row.
        x: first column.
        height: number of rows.
        width: number of columns.
        band: first and last column (exclusive) of the windows that are cut together, from the top to the
            bottom; ``None``: all of the image's.
    """

    y: int
    x: int
    height: int
    width: int
    band: tuple[int, int] | None = None

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns."""
        return slice(self.y, self.y + self.height), slice(self.x, self.x + self.width)


def starts(length: int, size: int, stride: int) -> list[int]:
    """First pixels of windows along one axis: every ``stride``, the last shifted inwards to the edge."""
    if length <= size:
        return [0]
    inner = list(range(0, length - size, stride))
    return [*inner, length - size]


def windows(height: int, width: int, config: TileConfig, banded: bool = False) -> list[Window]:
    """Windows that cover an image, row by row; an axis shorter than a tile stays whole.

    Args:
        height: of the image.
        width: of the image.
        config: size and stride.
        banded: an image that is wider than a band comes band by band, each from the top to the bottom, so
            that the rows that are held do not grow with the image.
    """
    across = starts(width, config.size, config.stride)
    shape = min(height, config.size), min(width, config.size)
    found = []
    for columns in _bands(across, shape[1]) if banded and width > BAND else [across]:
        band = (columns[0], columns[-1] + shape[1]) if len(columns) < len(across) else None
        found += [
            Window(y, x, *shape, band) for y in starts(height, config.size, config.stride) for x in columns
        ]
    return found


def _bands(across: list[int], width: int) -> list[list[int]]:
    """Windows beside each other that fit into a band; at least one."""
    bands: list[list[int]] = []
    for x in across:
        if bands and x + width - bands[-1][0] <= BAND:
            bands[-1].append(x)
        else:
            bands.append([x])
    return bands
