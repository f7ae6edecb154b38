"""Turns the values or colours of a mask into category ids.

Pixels of a class that is background become :data:`~pipelines.build.sources.table.BACKGROUND`.
"""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipelines.build.sources.table import SourceTable
from pipelines.pictures.masks import NO_DATA

RGB = tuple[int, int, int]
_MOST_VALUE = 65536
#: A value or colour that the table does not have.
_UNKNOWN = -1


Valid = NDArray[np.bool_] | None


@dataclass
class Tally:
    """What was seen in masks: pixels with a category, of ignored classes, without data, unknown values."""

    labelled: int = 0
    ignored: int = 0
    no_data: int = 0
    unknown: Counter[str] = field(default_factory=Counter)

    @property
    def pixels(self) -> int:
        """All pixels."""
        return self.labelled + self.ignored + self.no_data + self.unknown.total()


class IndexDecoder:
    """Class numbers to category ids."""

    def __init__(self, table: SourceTable) -> None:
        self._labels = np.full(_MOST_VALUE, _UNKNOWN, np.int32)
        others = []
        for row in table.classes:
            if row.value is None:
                continue
            if 0 <= row.value < _MOST_VALUE:
                self._labels[row.value] = row.label
            else:
                others.append((row.value, row.label))
        self._others = others

    def __call__(self, values: NDArray[np.integer], tally: Tally, valid: Valid = None) -> NDArray[np.int32]:
        """Category ids ``[H, W]`` of values ``[H, W]``; unknown values become 0 and are counted.

        Args:
            values: class numbers, or :data:`~pipelines.pictures.masks.NO_DATA`.
            tally: counts.
            valid: bool ``[H, W]``: where the picture and the mask have data; ``None``: everywhere.
        """
        if values.size and values.min() >= 0 and values.max() < _MOST_VALUE:  # no copies of a wide strip
            labels = self._labels[values]
        else:
            inside = (values >= 0) & (values < _MOST_VALUE)
            labels = np.where(inside, self._labels[np.where(inside, values, 0)], _UNKNOWN)
            for value, label in self._others:
                labels[values == value] = label
            empty = values == NO_DATA
            valid = ~empty if valid is None else valid & ~empty
        unknown = labels == _UNKNOWN
        if valid is not None:
            unknown &= valid
            labels = np.where(valid, labels, 0)
        if unknown.any():
            numbers, counts = np.unique(values[unknown], return_counts=True)
            tally.unknown.update({f"value {n}": int(c) for n, c in zip(numbers, counts, strict=True)})
            labels = np.where(unknown, 0, labels)
        _count(labels, int(unknown.sum()), tally, valid)
        return np.asarray(labels, np.int32)


class ThresholdDecoder:
    """Soft values to category ids: from a threshold on the class whose value is not 0, below it that of 0."""

    def __init__(self, table: SourceTable, threshold: float) -> None:
        self._threshold = threshold
        self._labels = np.zeros(2, np.int32)
        for row in table.classes:
            self._labels[int(row.value != 0)] = row.label

    def __call__(self, values: NDArray[np.floating], tally: Tally, valid: Valid = None) -> NDArray[np.int32]:
        """Category ids ``[H, W]`` of values ``[H, W]``; what is no number has no data."""
        known = ~np.isnan(values) if valid is None else valid & ~np.isnan(values)
        labels = np.where(known, self._labels[(values >= self._threshold).astype(np.int8)], 0)
        _count(labels, 0, tally, known)
        return np.asarray(labels, np.int32)


class ColourDecoder:
    """Colours to category ids; a colour within the tolerance of a class's, per channel, belongs to it."""

    def __init__(self, table: SourceTable) -> None:
        rows = [row for row in table.classes if row.colour is not None]
        self._colours = np.asarray([row.colour for row in rows], np.int32).reshape(-1, 3)
        packed = _pack(self._colours)
        order = np.argsort(packed)
        self._packed = packed[order]
        labels = np.asarray([row.label for row in rows], np.int32)
        self._by_class, self._by_packed = labels, labels[order]
        self._tolerance = table.tolerance

    def __call__(self, pixels: NDArray[np.uint8], tally: Tally, valid: Valid = None) -> NDArray[np.int32]:
        """Category ids ``[H, W]`` of colours ``[H, W, 3]``; unknown colours become 0 and are counted."""
        packed = _pack(pixels)
        place = np.minimum(np.searchsorted(self._packed, packed), len(self._packed) - 1)
        labels = self._by_packed[place]
        other = self._packed[place] != packed
        if valid is not None:
            other, labels = other & valid, np.where(valid, labels, 0).astype(np.int32)
        unknown = 0
        if other.any():
            found, inverse, counts = np.unique(packed[other], return_inverse=True, return_counts=True)
            near = self._nearest(found)
            for value, label, count in zip(found, near, counts, strict=True):
                if label == _UNKNOWN:
                    unknown += int(count)
                    tally.unknown[f"colour {_unpack(int(value))}"] += int(count)
            labels[other] = np.where(near == _UNKNOWN, 0, near)[inverse]
        _count(labels, unknown, tally, valid)
        return labels

    def _nearest(self, packed: NDArray[np.int32]) -> NDArray[np.int32]:
        """Label of the nearest class colour, unknown beyond the tolerance; ties go to the first class."""
        colours = np.stack([packed >> 16, packed >> 8 & 255, packed & 255], axis=-1)
        away = np.abs(colours[:, None] - self._colours[None]).max(-1)
        nearest = away.argmin(1)
        close = away[np.arange(len(packed)), nearest] <= self._tolerance
        return np.where(close, self._by_class[nearest], _UNKNOWN).astype(np.int32)


def _pack(pixels: NDArray[np.generic]) -> NDArray[np.int32]:
    wide = pixels.astype(np.int32)
    return np.asarray(wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2], np.int32)


def _unpack(value: int) -> RGB:
    return value >> 16, value >> 8 & 255, value & 255


def _count(labels: NDArray[np.int32], unknown: int, tally: Tally, valid: Valid) -> None:
    labelled = int(np.count_nonzero(labels > 0))
    empty = 0 if valid is None else valid.size - int(np.count_nonzero(valid))
    tally.labelled += labelled
    tally.no_data += empty
    tally.ignored += labels.size - labelled - unknown - empty
