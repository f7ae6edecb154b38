"""What an evaluation reads: a split of a store, or of a benchmark in the layout of its release.

Both are an index (a row a sample, the rows of an image adjacent) and a reader that loads rows.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.pictures.picture import Rules
from pipelines.storage.filesystem import open_filesystem
from pipelines.store.index import CARD, INDEX, StoreIndex, read_card
from pipelines.store.reader import Loaded, StoreReader
from pipelines.store.record import BadRecord
from pipelines.store.scan import open_all_splits
from pipelines.triplets.base import TripletImage, TripletSource
from pipelines.triplets.layouts import LAYOUTS, open_layout, recognise
from pipelines.triplets.truth import stretched_from
from unigeoseg.errors import UserError
from unigeoseg.tasks import TASKS

#: The name of all splits together.
ALL = "all"
#: The split of a benchmark when none is named: the first that it has.
_PREFERRED = ("test", "val")
_STORE_SPLIT = "val"


@dataclass(frozen=True)
class BenchmarkIndex:
    """One split of a benchmark, with what a :class:`StoreIndex` offers to an evaluation.

    Attributes:
        store: the benchmark's folder.
        split: name of the split.
        source: its reader.
        groups: its images in order.
    """

    store: str
    split: str
    source: TripletSource
    groups: list[TripletImage]

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def table(self) -> pa.Table:
        """``sample_id``, ``key`` and ``task`` of each row."""
        ids, keys, tasks = [], [], []
        for image in self.groups:
            for triplet in image.triplets:
                ids.append(image.sample_id(triplet, self.source.name))
                keys.append(image.key)
                tasks.append(triplet.task)
        return pa.table({"sample_id": ids, "key": keys, "task": tasks})

    @cached_property
    def tasks(self) -> NDArray[np.int8]:
        """Task id of each row; int8 ``[N]``."""
        numbers = [TASKS.index(triplet.task) for image in self.groups for triplet in image.triplets]
        return np.asarray(numbers, dtype=np.int8)

    @cached_property
    def images(self) -> NDArray[np.int64]:
        """Number of the image of each row; int64 ``[N]``."""
        sizes = [len(image.triplets) for image in self.groups]
        return np.repeat(np.arange(len(sizes), dtype=np.int64), sizes)

    @property
    def scenes(self) -> NDArray[np.int64]:
        """The place that each row shows; a benchmark says no more than its images. int64 ``[N]``."""
        return self.images

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """First row of each image; int64 ``[I]``."""
        return np.flatnonzero(np.diff(self.images, prepend=-1))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the samples' ids, texts, prompts and where their masks lie."""
        digest = hashlib.sha256(f"{self.source.name} {self.split}".encode())
        for image in self.groups:
            digest.update(repr((image.key, image.file, image.triplets)).encode())
        if not self.source.rules.turn:
            digest.update(b"as stored")
        return digest.hexdigest()

    def files(self) -> dict[str, Any]:
        """Files that are spelled otherwise than the benchmark says, by what was made of them."""
        told = self.source.folder.told()
        return {r: {"n": n, "named": told.names[r]} for r, n in sorted((told.counts + told.notes).items())}

    def published(self) -> dict[str, float]:
        """What the benchmark's authors give for their own method, by sample id."""
        return {
            image.sample_id(t, self.source.name): t.published_iou
            for image in self.groups
            for t in image.triplets
            if t.published_iou is not None
        }


#: Pixels of an upright picture, and how it was turned.
_Seen = tuple[NDArray[np.uint8], int]


class BenchmarkReader:
    """Reads rows of a benchmark; each image is read and decoded once for all rows asked for together."""

    def __init__(self, index: BenchmarkIndex) -> None:
        self.index = index

    def load(self, rows: Sequence[int] | NDArray[np.int64]) -> list[Loaded]:
        """Each row on its own, in the order asked for; a row that cannot be used says why.

        Raises:
            UserError: a file vanished since the index was made.
        """
        pictures: dict[int, _Seen | BadRecord] = {}
        return [self._load(int(row), pictures) for row in rows]

    def _load(self, row: int, pictures: dict[int, "_Seen | BadRecord"]) -> Loaded:
        number = int(self.index.images[row])
        image = self.index.groups[number]
        triplet = image.triplets[row - int(self.index.starts[number])]
        name = image.sample_id(triplet, self.index.source.name)
        if number not in pictures:
            try:
                picture = self.index.source.read_picture(image)
                pictures[number] = picture.pixels(), picture.turn
            except BadRecord as error:
                pictures[number] = error
        seen = pictures[number]
        try:
            if isinstance(seen, BadRecord):
                raise seen
            pixels, turn = seen
            height, width = pixels.shape[:2]
            sample = self.index.source.read_sample(image, triplet, height, width, turn)
            stretched = stretched_from(triplet.truth, height, width, turn)
        except BadRecord as error:
            return Loaded(row, name, None, None, error.reason, error.detail)
        return Loaded(row, name, pixels, sample, mask_size=stretched)


Index = StoreIndex | BenchmarkIndex
Reader = StoreReader | BenchmarkReader


@dataclass(frozen=True)
class DataChoice:
    """Which data an evaluation means.

    Attributes:
        split: of the store or benchmark.
        layout: of a benchmark, ``None`` for a store.
        boxes: whether the benchmark compares boxes.
    """

    split: str
    layout: str | None
    boxes: bool


def choose_data(
    path: str, split: str | None = None, layout: str | None = None, turn: bool = True
) -> DataChoice:
    """Finds out what ``path`` is.

    Without ``split`` it is ``val`` of a store (``test`` where it has none), ``test`` or ``val`` of a
    benchmark.

    Raises:
        UserError: it is neither a store nor a benchmark, the layout does not fit, there is no such split, or
            pictures of a store shall not be turned.
    """
    source = open_layout(path, layout) if layout else None if _is_store(path) else recognise(path)
    if source is None:
        if not _is_store(path):
            _refuse(path)
        if not turn:
            raise UserError(
                f"--no-turn: {path} is a store, whose pictures were turned when it was built; build it with "
                "--set source.turn=false"
            )
        return DataChoice(split or _split_of_store(path), None, False)
    there = source.splits()
    chosen = split or next((s for s in _PREFERRED if s in there), there[0] if there else ALL)
    if chosen != ALL and chosen not in there:
        raise UserError(
            f"{path} ({source.title}) has no split {chosen!r}: it has {there}; give one of them "
            f"with --split, or {ALL}"
        )
    return DataChoice(chosen, source.name, source.boxes)


def open_index(path: str, split: str, layout: str | None = None, turn: bool = True) -> Index:
    """The index of a split; ``turn``: whether a benchmark's pictures are turned as EXIF says.

    Raises:
        UserError: no store or benchmark there, missing files, or nothing in the split.
    """
    if layout is None:
        return open_all_splits(path) if split == ALL else StoreIndex.open(path, split)
    source = open_layout(path, layout, Rules(turn=turn))
    splits: Iterable[str] = source.splits() if split == ALL else (split,)
    groups = [image for name in splits for image in source.images(name)]
    if not groups:
        raise UserError(
            f"{path} ({source.title}) has no samples in split {split!r}: it has {source.splits()}"
        )
    return BenchmarkIndex(path, split, source, groups)


def open_reader(index: Index) -> Reader:
    """What loads the rows of an index."""
    return BenchmarkReader(index) if isinstance(index, BenchmarkIndex) else StoreReader(index)


def _split_of_store(path: str) -> str:
    """``val``, or ``test`` of a store that was made for testing alone."""
    there = read_card(path).get("counts", {}).get("split", {})
    return "test" if "test" in there and _STORE_SPLIT not in there else _STORE_SPLIT


def _is_store(path: str) -> bool:
    fs, root = open_filesystem(path)
    return any(fs.exists(f"{root}/{name}") for name in (CARD, INDEX))


def _refuse(path: str) -> None:
    fs, root = open_filesystem(path)
    if not fs.exists(root):
        raise UserError(f"no data at {path}: there is no such folder; give --data a store or a benchmark")
    known = "; ".join(f"{name} ({layout.expects})" for name, layout in LAYOUTS.items())
    raise UserError(
        f"{path} is neither a store (no {CARD}: none, or its build was interrupted) nor a benchmark in a "
        f"known layout: {known}. Give the folder where the layout begins, or name it with --layout"
    )
