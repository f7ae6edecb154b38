"""What an adapter gives to the construction pipeline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from unigeoseg.errors import UserError


class UnusableImage(UserError):
    """An image that cannot be used: counted and named, borne up to ``BuildConfig.max_bad_share``.

    Attributes:
        reason: short and countable, such as ``unreadable_image``.
        where: the file, or the item's key.
    """

    def __init__(self, reason: str, where: str, detail: str) -> None:
        self.reason, self.where, self.detail = reason, where, detail
        super().__init__(f"{where}: {detail}")


@dataclass(frozen=True)
class SourceItem:
    """An image of a source before it is read.

    Attributes:
        key: unique in the source, made of letters, digits and underscores.
        scene: the place that the image shows.
        group: what the split keeps together (the scene, or a folder of scenes that touch).
        detail: what the adapter needs to read it.
    """

    key: str
    scene: str
    group: str
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class SourceImage:
    """An image with its labels in the taxonomy.

    Attributes:
        pixels: uint8 RGB ``[H, W, 3]``.
        labels: int32 ``[H, W]``, category ids of a semantic source, else instance ids; 0 is ignored.
        instances: category id of each instance id, or ``None`` for a semantic source.
        colours: colour word of an instance, where the source knows it.
        encoded: the file's own bytes, kept when the image becomes one tile.
        extension: of ``encoded``: "png" or "jpg".
        ignored: number of pixels that map to no category, by reason.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int32]
    instances: dict[int, int] | None = None
    colours: dict[int, str] = field(default_factory=dict)
    encoded: bytes | None = None
    extension: str = "png"
    ignored: dict[str, int] = field(default_factory=dict)


class Source(Protocol):
    """A data set that can be turned into a store."""

    name: str
    licence: str

    def items(self) -> Sequence[SourceItem]:
        """Every image, in a fixed order."""
        ...

    def read(self, item: SourceItem) -> SourceImage:
        """Loads one image.

        Raises:
            UnusableImage: this image cannot be used.
            UserError: the whole source is wrong (an unknown mask colour, say).
        """
        ...
