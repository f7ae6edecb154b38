"""Samples of a store: each image fetched and decoded once however many of its samples are asked for."""

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.storage.retry import Retry
from pipelines.store.fetch import FetchStats, Range, RangeFetcher
from pipelines.store.index import StoreIndex
from pipelines.store.record import BadRecord, Fragment, decode_image, decode_sample, parse_fragment
from unigeoseg.errors import UserError
from unigeoseg.samples.sample import ImageGroup, Sample


@dataclass(frozen=True)
class Loaded:
    """One row, decoded; or the reason why it cannot be used.

    Attributes:
        row: number in the index.
        sample_id: its id.
        image: uint8 RGB ``[H, W, 3]``, shared by the samples of an image; ``None`` when bad.
        sample: ``None`` when bad.
        reason: as :class:`~pipelines.store.record.BadRecord`, or empty.
        detail: the reason in words.
        mask_size: height and width of a mask that was stretched to its picture, else ``None``.
    """

    row: int
    sample_id: str
    image: NDArray[np.uint8] | None
    sample: Sample | None
    reason: str = ""
    detail: str = ""
    mask_size: tuple[int, int] | None = None


@dataclass
class ReadStats(FetchStats):
    """Reading and decoding together; ``images`` counts decoded images."""

    decode_seconds: float = 0.0
    images: int = 0
    samples: int = 0

    def add(self, other: "ReadStats") -> None:
        """Adds the counts of ``other``."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


@dataclass
class ReadResult:
    """Images with their usable samples, in order of first request, and the rows that are unusable."""

    groups: list[ImageGroup] = field(default_factory=list)
    bad: list[Loaded] = field(default_factory=list)


@dataclass(frozen=True)
class _Image:
    """What came of an image's bytes: its record where that could be read, and pixels or what is wrong."""

    fragment: Fragment | None
    pixels: NDArray[np.uint8] | None = None
    bad: BadRecord | None = None


class StoreReader:
    """Reads rows of an index.

    Args:
        index: the split to read from.
        retry: how storage errors are met.
        at_once: most requests under way at a time.

    The object may be used by several threads. It must be made anew in another process.
    """

    def __init__(self, index: StoreIndex, retry: Retry | None = None, at_once: int = 32) -> None:
        self.index = index
        self.stats = ReadStats()
        self._fetcher = RangeFetcher(index.store, retry, at_once)
        self._lock = threading.Lock()

    def read(self, rows: Sequence[int] | NDArray[np.int64]) -> ReadResult:
        """The rows as image groups; samples of one image stand together.

        Raises:
            UserError: a shard is missing or out of reach, or does not belong to the index.
        """
        result = ReadResult()
        places: dict[int, int] = {}
        groups: list[tuple[NDArray[np.uint8], list[Sample]]] = []
        for loaded in self.load(rows):
            if loaded.sample is None or loaded.image is None:
                result.bad.append(loaded)
                continue
            place = places.setdefault(id(loaded.image), len(groups))
            if place == len(groups):
                groups.append((loaded.image, []))
            groups[place][1].append(loaded.sample)
        result.groups = [ImageGroup(image, tuple(samples)) for image, samples in groups]
        return result

    def load(self, rows: Sequence[int] | NDArray[np.int64], into: ReadStats | None = None) -> list[Loaded]:
        """Each row on its own, in the order asked for; an image is fetched and decoded once.

        Args:
            rows: numbers in the index.
            into: also counts this call's cost.

        Raises:
            UserError: as :meth:`read`.
        """
        return list(self.each(rows, into))

    def each(
        self, rows: Sequence[int] | NDArray[np.int64], into: ReadStats | None = None
    ) -> Iterator[Loaded]:
        """As :meth:`load`, but a row is decoded when asked for, and an image held as long as rows need it.

        The bytes of all rows are fetched at the start; what reading cost is counted at the end.
        """
        entries = self.index.rows(rows)
        last = {_range(entry): number for number, entry in enumerate(entries)}
        stats = ReadStats(images=len(last), samples=len(entries))
        answers = dict(zip(last, self._fetcher.fetch(list(last), stats), strict=True))
        images: dict[Range, _Image] = {}
        for number, (row, entry) in enumerate(zip(rows, entries, strict=True)):
            started, place = time.perf_counter(), _range(entry)
            image = images.pop(place, None) or _decode(answers.pop(place), entry)
            if number < last[place]:
                images[place] = image
            loaded = self._sample(int(row), entry, image)
            stats.decode_seconds += time.perf_counter() - started
            del image
            yield loaded
            del loaded  # before the next is decoded, into the same memory where nobody kept it
        with self._lock:
            self.stats.add(stats)
        if into is not None:
            into.add(stats)

    def _sample(self, row: int, entry: dict[str, Any], image: _Image) -> Loaded:
        name = entry["sample_id"]
        if image.fragment is not None:  # before anything else of another store's is held against this index
            self._check_same(entry, image.fragment.record)
        try:
            if image.bad is not None:
                raise image.bad
            assert image.pixels is not None and image.fragment is not None
            height, width = image.pixels.shape[:2]
            sample = decode_sample(image.fragment.record, entry["n"], height, width, entry.get("mask_area"))
        except BadRecord as error:
            return Loaded(row, name, None, None, error.reason, error.detail)
        return Loaded(row, name, image.pixels, sample)

    def _check_same(self, entry: dict[str, Any], record: dict[str, Any]) -> None:
        """Refuses a record whose sample is not the index's; a damaged one is found out by decoding it."""
        try:
            held = record["samples"][entry["n"]]
            found = held["sample_id"], held["task"]
        except (LookupError, TypeError):
            return
        if found != (entry["sample_id"], entry["task"]):
            raise UserError(
                f"{self.index.store}: the index says {entry['sample_id']} at {entry['shard']}:"
                f"{entry['offset']}, the shard holds {found[0]}; index and shards do not belong together: "
                "build the store again"
            )


def _range(entry: dict[str, Any]) -> Range:
    return entry["shard"], entry["offset"], entry["nbytes"]


def _decode(data: bytes, entry: dict[str, Any]) -> _Image:
    fragment = None
    try:
        fragment = parse_fragment(data)
        return _Image(fragment, decode_image(fragment.image, entry["height"], entry["width"]))
    except BadRecord as error:
        return _Image(fragment, bad=error)
