"""What an adapter gives to the construction pipeline."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipelines.labels.regions import Region
from pipelines.labels.stages import StageCounts
from pipelines.labels.tiling import Window
from pipelines.pictures.errors import UnusableImage

__all__ = ["OpenImage", "Refused", "Source", "SourceImage", "SourceItem", "Triplet", "UnusableImage"]


@dataclass(frozen=True)
class SourceItem:
    """An image of a source before it is read.

    Attributes:
        key: unique in the source, made of letters, digits and underscores.
        scene: the place that the image shows.
        group: what the split keeps together (the scene, or a folder of scenes that touch).
        detail: what the adapter needs to read it, as plain JSON values; paths and addresses of files as text,
            several as the list ``files``, so that a changed one is noticed. ``states`` has, by any name, size
            and ETag of those that an object store listed.
        split: the source's own "train", "val" or "test", where it has one (``split.own`` decides on its use).
            ``also`` in ``detail`` lists other splits whose samples on this image came with it.
    """

    key: str
    scene: str
    group: str
    detail: Mapping[str, Any] = field(default_factory=dict)
    split: str | None = None


@dataclass(frozen=True)
class Triplet:
    """A ready sample: an instruction and its mask, as a benchmark gives them.

    Attributes:
        task: interactive, referring or reasoning.
        subtask: as in the store.
        instruction: text.
        answer: text, may be empty.
        mask: uint8 0/1 ``[H, W]`` of the whole image; all zero where nothing is meant.
        category_id: of the taxonomy, 0 where the source names none.
        category: the source's own name, may be empty.
        box: x0, y0, x1, y1 in [0, 1].
        points: (x, y) in [0, 1].
    """

    task: str
    subtask: str
    instruction: str
    mask: NDArray[np.uint8]
    answer: str = ""
    category_id: int = 0
    category: str = ""
    box: tuple[float, float, float, float] | None = None
    points: tuple[tuple[float, float], ...] | None = None


@dataclass(frozen=True)
class Refused:
    """A ready sample that cannot be used: its task, a short reason, and what is said of it."""

    task: str
    reason: str
    name: str
    detail: str


@dataclass
class SourceImage:
    """An image, or a window of one, with its labels in the taxonomy.

    Attributes:
        pixels: uint8 RGB ``[H, W, 3]``.
        labels: int32 ``[H, W]``, category ids of a semantic source, else instance ids; 0 is ignored.
        instances: category id of each instance id, or ``None`` for a semantic source.
        colours: colour word of an instance, where the source knows it.
        encoded: the file's own bytes, kept when the image becomes one tile.
        extension: of ``encoded``: "png" or "jpg".
        ignored: number of pixels that map to no category, by reason.
        regions: objects that may overlap; given instead of ``labels``.
        triplets: ready samples; the image is then neither cut nor described.
        refused: ready samples that cannot be used.
        noted: what was done to the image's samples, by remark.
        vocabulary: categories that the labels show wherever they are; empty where that is not known.
        partial: categories of which objects were left out (crowds, damaged ones).
        reaching: categories of objects that reach the window, whether or not they have a pixel there.
        unlabelled: pixels of which the labels say nothing: ignored ones that are no background, no data.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int32]
    instances: dict[int, int] | None = None
    colours: dict[int, str] = field(default_factory=dict)
    encoded: bytes | None = None
    extension: str = "png"
    ignored: dict[str, int] = field(default_factory=dict)
    regions: list[Region] | None = None
    triplets: list[Triplet] | None = None
    refused: list[Refused] = field(default_factory=list)
    noted: dict[str, int] = field(default_factory=dict)
    vocabulary: frozenset[int] = frozenset()
    partial: frozenset[int] = frozenset()
    reaching: frozenset[int] = frozenset()
    unlabelled: int = 0

    @property
    def height(self) -> int:
        """Pixels."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Pixels."""
        return int(self.pixels.shape[1])

    def cut(self, window: Window) -> "SourceImage":
        """The part of the image in a window; instance ids stay what they are."""
        return SourceImage(
            self.pixels[window.slices],
            np.ascontiguousarray(self.labels[window.slices]),
            self.instances,
            self.colours,
            vocabulary=self.vocabulary,
            partial=self.partial,
            unlabelled=self.unlabelled,
        )

    def count(self, counts: StageCounts) -> None:
        """Says how many pixels have a category, once all windows were cut."""
        labelled = int(np.count_nonzero(self.labels))
        counts.add("standardise", self.labels.size, labelled, self.ignored)


class OpenImage(Protocol):
    """An image of any size, of which windows are read row by row from the top.

    It may have ``in_blocks: bool``, whether some columns can be read without the others; a wide one is then
    read in bands.
    """

    height: int
    width: int
    #: The file's own bytes where they may be kept, and their kind.
    encoded: bytes | None
    extension: str

    def cut(self, window: Window) -> SourceImage:
        """Pixels and labels of a window.

        Raises:
            UnusableImage: the file is damaged.
        """
        ...

    def count(self, counts: StageCounts) -> None:
        """Adds what was read and what was left out; called once, after the last window.

        Raises:
            UserError: the source is wrong (too many unknown colours, say).
        """
        ...


class Source(Protocol):
    """A data set that can be turned into a store.

    It travels to other processes, so it holds no list of its images. It may have ``fingerprint: str``, what
    decides its labels beside its files and options, ``told``, whose ``files`` are the counts of the stage
    "files" once all items were asked for and whose ``scene`` says what a scene is, ``scene: str``, the same
    of a source without ``told``, and ``keeps_splits: bool``, whether ``split.own`` left open means yes, as
    for samples that are ready and not cut into tiles.
    """

    name: str
    licence: str

    def items(self) -> Iterable[SourceItem]:
        """Every image, in a fixed order; asked for once a build.

        Raises:
            UserError: the source's folder does not hold what it should.
        """
        ...

    def read(self, item: SourceItem) -> SourceImage | OpenImage:
        """Opens one image.

        Raises:
            UnusableImage: this image cannot be used.
            UserError: the whole source is wrong (an unknown mask colour, say).
        """
        ...
