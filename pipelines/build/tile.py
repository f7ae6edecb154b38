"""A tile on its way to the store."""

from dataclasses import dataclass
from typing import Any


@dataclass
class Tile:
    """A tile with its samples, before the steps that need the whole source.

    Attributes:
        key: unique in the store.
        scene: what it shows.
        group: what the split keeps together.
        extension: "png" or "jpg".
        image: encoded bytes.
        height: pixels.
        width: pixels.
        categories: how many categories it shows.
        samples: as in the store's JSON.
        own_split: the source's own split.
    """

    key: str
    scene: str
    group: str
    extension: str
    image: bytes
    height: int
    width: int
    categories: int
    samples: list[dict[str, Any]]
    own_split: str | None = None

    @property
    def nbytes(self) -> int:
        """Size of the encoded image."""
        return len(self.image)
