"""Windows of a fixed size over images of any size."""

from dataclasses import dataclass

from pipelines.build.config import TileConfig


@dataclass(frozen=True)
class Window:
    """A rectangle of an image, in pixels."""

    y: int
    x: int
    height: int
    width: int

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


def windows(height: int, width: int, config: TileConfig) -> list[Window]:
    """Windows that cover an image, row by row; an axis shorter than a tile stays whole."""
    return [
        Window(y, x, min(height, config.size), min(width, config.size))
        for y in starts(height, config.size, config.stride)
        for x in starts(width, config.size, config.stride)
    ]
