"""Evaluations as people look at them: worst first, by task, category and size, one or two models."""

import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipelines.evaluate.data import Index, Reader, open_index, open_reader
from pipelines.evaluate.records import decode_mask, encode_mask
from pipelines.evaluate.summary import NO_CATEGORY, size_names
from pipelines.storage.filesystem import open_filesystem, storage_errors
from pipelines.store.reader import Loaded
from pipelines.web.images import Opener
from pipelines.web.pyramid import Pyramid
from unigeoseg.errors import UserError
from unigeoseg.samples.letterbox import Letterbox

#: Columns that rows are chosen by.
FILTERS = ("task", "category", "size")
#: What rows are put in order by: IoU of the first model, or the second's less the first's.
ORDERS = ("worst", "best", "gain", "loss")
PAGE = 30


class UnknownRow(LookupError):
    """The evaluation has no such row."""


class Evaluated:
    """The files of one evaluation.

    Args:
        folder: with ``evaluation.json`` and ``per_sample.parquet``; local or ``s3://``.

    Raises:
        UserError: they are not there, or damaged.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        filesystem, inside = open_filesystem(folder)
        try:
            self.result: dict[str, Any] = json.loads(filesystem.cat_file(f"{inside}/evaluation.json"))
            with filesystem.open(f"{inside}/per_sample.parquet", "rb") as file:
                self.table = pq.read_table(file)
        except FileNotFoundError as error:
            raise UserError(
                f"--evaluation {folder} holds no evaluation.json and per_sample.parquet: give the --out of "
                "unigeoseg evaluate, or a run's evaluation folder"
            ) from error
        except (*storage_errors(), ValueError, pa.ArrowInvalid) as error:
            raise UserError(f"--evaluation {folder} cannot be read ({error})") from error

    @property
    def name(self) -> str:
        """The model."""
        return str(self.result.get("model", self.folder))

    @property
    def saved(self) -> bool:
        """Whether the predictions are there."""
        return "prediction" in self.table.column_names

    @cached_property
    def rows(self) -> dict[str, int]:
        """Row of each sample id."""
        return {name: row for row, name in enumerate(self.table["sample_id"].to_pylist())}

    def prediction(self, row: int, height: int, width: int) -> dict[str, Any] | None:
        """The mask of a row at its picture's size, as run lengths; ``None`` where it was not saved."""
        counts = self.table["prediction"][row].as_py() if self.saved else None
        if counts is None:
            return None
        mask = decode_mask(counts, self.table["size"][row].as_py())
        if self.result.get("compare") != "original":
            mask = _from_square(mask, height, width)
        return _rle(mask)


class EvaluationView:
    """One evaluation, or two of the same data side by side.

    Args:
        folders: of one or two.

    Raises:
        UserError: one is not there, or the two have no sample in common.
    """

    def __init__(self, folders: Sequence[str]) -> None:
        if len(folders) > 2:
            raise UserError(f"--evaluation is given {len(folders)} times: give one, or two to compare")
        self.parts = [Evaluated(folder) for folder in folders]
        first = self.parts[0].table
        category = pc.if_else(pc.equal(first["category"], ""), NO_CATEGORY, first["category"])
        self._columns = {"task": first["task"], "category": category, "size": size_names(first)}
        self._ids: list[str] = first["sample_id"].to_pylist()
        self._iou = first["iou"].to_numpy()
        self._other = self._second()
        self._opened: tuple[Index, Reader] | None = None

    def _second(self) -> NDArray[np.float64] | None:
        if len(self.parts) < 2:
            return None
        rows = self.parts[1].rows
        values = self.parts[1].table["iou"].to_numpy()
        found = np.asarray([values[rows[name]] if name in rows else np.nan for name in self._ids])
        if np.isnan(found).all():
            raise UserError("the two --evaluation have no sample in common: evaluate both on the same data")
        return found

    def describe(self) -> dict[str, Any]:
        """Results, and the values of the filters."""
        facets = {}
        for name in FILTERS:
            counted = pc.value_counts(self._columns[name]).to_pylist()
            counted.sort(key=lambda one: (-one["counts"], str(one["values"])))
            facets[name] = [{"value": one["values"], "n": one["counts"]} for one in counted]
        kept = ("tasks", "overall", "data", "split", "compare")
        models = [
            {"model": part.name, "saved": part.saved, **{key: part.result.get(key) for key in kept}}
            for part in self.parts
        ]
        return {"models": models, "facets": facets, "n": len(self._ids)}

    def page(self, chosen: dict[str, str], order: str, page: int) -> dict[str, Any]:
        """Rows that have the chosen values.

        Args:
            chosen: value by filter.
            order: of :data:`ORDERS`.
            page: from 0.
        """
        keep = np.ones(len(self._ids), bool)
        for name, value in chosen.items():
            keep &= np.asarray(pc.equal(self._columns[name], value))
        key = self._iou
        if order in ("gain", "loss") and self._other is not None:
            key = self._other - self._iou
            keep &= ~np.isnan(key)
        rows = np.flatnonzero(keep)
        descending = order in ("best", "gain")
        rows = rows[np.argsort(-key[rows] if descending else key[rows], kind="stable")]
        shown = rows[page * PAGE : (page + 1) * PAGE]
        return {
            "n": len(rows),
            "page": page,
            "pages": -(-len(rows) // PAGE),
            "rows": [self._line(int(row)) for row in shown],
        }

    def _line(self, row: int) -> dict[str, Any]:
        ious = [float(self._iou[row])]
        if self._other is not None and not np.isnan(self._other[row]):
            ious.append(float(self._other[row]))
        told = {name: self._columns[name][row].as_py() for name in FILTERS}
        return {"row": row, "sample_id": self._ids[row], "ious": ious, **told}

    def row(self, row: int) -> dict[str, Any]:
        """A sample with its truth and what each model marked.

        Raises:
            UnknownRow: there is no such row.
            UserError: its data cannot be read.
        """
        loaded = self._load(row)
        sample, image = loaded.sample, loaded.image
        assert sample is not None and sample.mask is not None and image is not None
        height, width = image.shape[:2]
        answers = []
        for part in self.parts:
            at = part.rows.get(self._ids[row])
            if at is not None:
                iou = part.table["iou"][at].as_py()
                answers.append({"model": part.name, "iou": iou, "mask": part.prediction(at, height, width)})
        return {
            **self._line(row),
            "image": f"evaluation-{row}",
            "instruction": sample.instruction,
            "truth": _rle(sample.mask > 0),
            "answers": answers,
        }

    def opener(self, row: int) -> tuple[str, Opener] | None:
        """Name of a row's picture, and what opens it."""
        if row >= len(self._ids):
            return None

        def open_row() -> Pyramid:
            image = self._load(row).image
            assert image is not None
            return Pyramid.of_pixels(image, self._ids[row])

        return self._ids[row], open_row

    def _load(self, row: int) -> Loaded:
        if not 0 <= row < len(self._ids):
            raise UnknownRow(row)
        index, reader = self._data()
        at = self._places.get(self._ids[row])
        if at is None:
            raise UserError(f"{index.store} no longer holds {self._ids[row]}")
        (loaded,) = reader.load([at])
        if loaded.sample is None:
            raise UserError(f"{loaded.sample_id} cannot be used: {loaded.detail}")
        return loaded

    def _data(self) -> tuple[Index, Reader]:
        """What was evaluated, opened when it is first looked at."""
        if self._opened is None:
            told = self.parts[0].result
            index = open_index(told["data"], told["split"], told.get("layout"), told.get("turn", True))
            self._opened = index, open_reader(index)
        return self._opened

    @cached_property
    def _places(self) -> dict[str, int]:
        """Row of each sample id in the data."""
        index, _ = self._data()
        return {name: row for row, name in enumerate(index.table["sample_id"].to_pylist())}


def _from_square(mask: NDArray[np.bool_], height: int, width: int) -> NDArray[np.bool_]:
    """A mask on the letterboxed square at its picture's size, nearest pixels."""
    fit = Letterbox.fit(height, width, mask.shape[0])
    inner = np.ascontiguousarray(mask[fit.rows, fit.columns], np.uint8)
    return np.asarray(cv2.resize(inner, (width, height), interpolation=cv2.INTER_NEAREST) > 0)


def _rle(mask: NDArray[np.bool_]) -> dict[str, Any]:
    found = encode_mask(mask)
    return {"size": found["size"], "counts": found["prediction"]}
