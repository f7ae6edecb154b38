"""A store as people look at it: filtered, a page at a time, truth beside answers."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.evaluate.records import encode_mask
from pipelines.evaluate.yardsticks import swap_partners
from pipelines.store.index import StoreIndex
from pipelines.store.reader import Loaded, StoreReader
from pipelines.web.images import Opener
from pipelines.web.pyramid import Pyramid
from unigeoseg.errors import UserError
from unigeoseg.metrics import iou
from unigeoseg.question import Question
from unigeoseg.samples.sample import Sample

#: Columns that samples are chosen by.
FILTERS = ("task", "subtask", "category", "source", "split")
#: Samples of a page.
PAGE = 24
#: Values of a filter that are offered.
_MOST_VALUES = 200
#: The split that examples are taken from, where there is one.
_HELD_OUT = ("val", "test")


class UnknownSample(LookupError):
    """The store has no such row."""


class StoreView:
    """A store, opened.

    Args:
        store: folder or ``s3://`` prefix.

    Raises:
        UserError: there is none.
    """

    def __init__(self, store: str) -> None:
        self.index = StoreIndex.open_all(store)
        self._reader = StoreReader(self.index)

    @cached_property
    def facets(self) -> dict[str, list[dict[str, Any]]]:
        """Values of each filter with their numbers, the most frequent first."""
        found = {}
        for name in FILTERS:
            if name in self.index.table.column_names:
                counted = pc.value_counts(self._column(name)).to_pylist()
                counted.sort(key=lambda one: (-one["counts"], str(one["values"])))
                found[name] = [{"value": one["values"], "n": one["counts"]} for one in counted[:_MOST_VALUES]]
        return found

    def _column(self, name: str) -> pa.Array:
        column = self.index.table[name]
        return column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column

    def page(self, chosen: dict[str, str], page: int) -> dict[str, Any]:
        """Samples that have the chosen values.

        Args:
            chosen: value by filter.
            page: from 0.
        """
        keep = np.ones(len(self.index), bool)
        for name, value in chosen.items():
            keep &= np.asarray(pc.fill_null(pc.equal(self._column(name), value), False))
        rows = np.flatnonzero(keep)
        shown = rows[page * PAGE : (page + 1) * PAGE]
        return {"n": len(rows), "page": page, "pages": -(-len(rows) // PAGE), "samples": self._cards(shown)}

    def _cards(self, rows: NDArray[np.int64]) -> list[dict[str, Any]]:
        found = []
        for loaded in self._reader.each(rows):
            if loaded.sample is None:
                found.append({"row": loaded.row, "sample_id": loaded.sample_id, "wrong": loaded.detail})
                continue
            sample = loaded.sample
            found.append(
                {
                    "row": loaded.row,
                    "image": f"store-{loaded.row}",
                    "sample_id": loaded.sample_id,
                    "task": sample.task,
                    "category": sample.category,
                    "instruction": sample.instruction,
                }
            )
        return found

    def sample(self, row: int) -> dict[str, Any]:
        """A sample with its truth.

        Raises:
            UnknownSample: there is no such row.
            UserError: it cannot be read.
        """
        loaded = self._load(row)
        sample, image = loaded.sample, loaded.image
        assert sample is not None and sample.mask is not None and image is not None
        height, width = image.shape[:2]
        rle = encode_mask(sample.mask > 0)
        return {
            "row": row,
            "image": f"store-{row}",
            "key": str(self.index.table["key"][row]),
            "sample_id": sample.sample_id,
            "task": sample.task,
            "subtask": sample.subtask,
            "category": sample.category,
            "source": sample.source,
            "split": str(self.index.table["split"][row]),
            "instruction": sample.instruction,
            "answer": sample.answer,
            "box": None if sample.box is None else _pixels(sample.box, width, height),
            "points": [_pixels(point, width, height) for point in sample.points or ()],
            "truth": {"size": rle["size"], "counts": rle["prediction"]},
            "width": width,
            "height": height,
            "twins": [{"row": twin, "instruction": other.instruction} for twin, other in self._twins(row)],
        }

    def question(self, row: int) -> Question:
        """What a sample asks.

        Raises:
            UnknownSample: there is no such row.
            UserError: it cannot be read.
        """
        sample = self._load(row).sample
        assert sample is not None
        return Question(sample.task, sample.instruction, sample.box, sample.points)

    def measured(self, row: int, mask: NDArray[np.bool_]) -> dict[str, Any]:
        """A mask at the picture's size against a sample's truth.

        Raises:
            UnknownSample: there is no such row.
            UserError: it cannot be read.
        """
        sample = self._load(row).sample
        assert sample is not None and sample.mask is not None
        truth = sample.mask > 0
        both, either = int((truth & mask).sum()), int((truth | mask).sum())
        return {
            "iou": iou(both, either),
            "hit": both,
            "missed": int((truth & ~mask).sum()),
            "false": int((mask & ~truth).sum()),
        }

    def twins(self, row: int) -> list[int]:
        """Rows of :meth:`sample`'s twins: same picture, task and category, another mask.

        Raises:
            UnknownSample: there is no such row.
            UserError: it cannot be read.
        """
        self._load(row)
        return [twin for twin, _ in self._twins(row)]

    def beside(self, row: int) -> list[Sample]:
        """All samples of the picture of a row, one of each kind first."""
        found = [one.sample for one in self._reader.each(self._rows_beside(row)) if one.sample is not None]
        seen: dict[str, int] = {}
        turns = []
        for number, sample in enumerate(found):
            seen[sample.task] = seen.get(sample.task, 0) + 1
            turns.append((seen[sample.task], -number if sample.task == "interactive" else number, sample))
        order = ("referring", "interactive", "reasoning")
        turns.sort(key=lambda one: (one[0], order.index(one[2].task), one[1]))
        return [sample for _, _, sample in turns]

    def different_images(self, most: int) -> list[int]:
        """Rows of some different pictures, held-out ones where there are any."""
        splits = np.asarray(self._column("split").to_pylist(), object)
        held = next((name for name in _HELD_OUT if (splits == name).any()), None)
        rows = np.flatnonzero(splits == held) if held else np.arange(len(splits))
        _, first = np.unique(self.index.images[rows], return_index=True)
        chosen = rows[first][:most]
        return [loaded.row for loaded in self._reader.each(chosen) if loaded.sample is not None]

    def opener(self, row: int) -> tuple[str, Opener] | None:
        """Name of a row's picture, and what opens it."""
        if row >= len(self.index):
            return None
        name = str(self.index.table["key"][row])

        def open_row() -> Pyramid:
            image = self._load(row).image
            assert image is not None
            return Pyramid.of_pixels(image, name)

        return name, open_row

    def _rows_beside(self, row: int) -> NDArray[np.int64]:
        images = self.index.images
        first, last = np.searchsorted(images, [images[row], images[row] + 1])
        return np.arange(first, last)

    def _twins(self, row: int) -> list[tuple[int, Sample]]:
        """Others on the picture of the same task and category, with another mask."""
        others = [
            (one.row, one.sample)
            for one in self._reader.each(self._rows_beside(row))
            if one.sample is not None and one.sample.mask is not None
        ]
        samples: Sequence[Sample] = [one for _, one in others]
        place = [number for number, _ in others].index(row)
        truths = np.stack([one.mask for one in samples if one.mask is not None]) > 0
        partners = swap_partners([s.task for s in samples], [s.category_id for s in samples], truths)
        return [others[number] for number in partners[place]]

    def _load(self, row: int) -> Loaded:
        if not 0 <= row < len(self.index):
            raise UnknownSample(row)
        (loaded,) = self._reader.load([row])
        if loaded.sample is None:
            raise UserError(f"{loaded.sample_id} cannot be used: {loaded.detail}")
        return loaded


def _pixels(values: Sequence[float], width: int, height: int) -> list[float]:
    return [round(v * (height if n % 2 else width), 3) for n, v in enumerate(values)]
