"""The index of a store: a row a sample, and where its bytes are. All that planning and statistics need."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from fsspec import AbstractFileSystem
from numpy.typing import NDArray

from pipelines.storage.filesystem import open_filesystem, storage_errors
from pipelines.storage.parquet import read_parquet
from pipelines.store.mapped import Rows, mapped_split
from unigeoseg.errors import UserError
from unigeoseg.tasks import TASKS

CARD = "dataset.json"
INDEX = "index.parquet"
#: What the plan and the reader cannot do without.
REQUIRED = ("sample_id", "key", "n", "task", "split", "shard", "offset", "nbytes", "height", "width")
#: What decides which bytes a sample stands for; hashed into the fingerprint.
_IDENTITY = ("sample_id", "task", "shard", "offset", "nbytes", "n")


@dataclass(frozen=True)
class StoreIndex:
    """One split of a store.

    Attributes:
        store: folder or ``s3://`` prefix.
        split: name of the split.
        table: its rows; the rows of one image are adjacent.
        card: the content of ``dataset.json``.
    """

    store: str
    split: str
    table: pa.Table
    card: dict[str, Any]

    @classmethod
    def open(cls, store: str, split: str = "train") -> "StoreIndex":
        """Reads ``dataset.json`` and the rows of ``split``.

        Raises:
            UserError: there is no store, it is unfinished, damaged, not accessible, or the split is empty.
        """
        card = read_card(store)
        chosen = _read_split(store, split)
        _check_tasks(store, chosen)
        return cls(str(store), split, chosen, card)

    @classmethod
    def open_all(cls, store: str, card: dict[str, Any] | None = None) -> "StoreIndex":
        """The rows of all splits, in the order of the file.

        Args:
            store: folder or ``s3://`` prefix.
            card: instead of ``dataset.json``, of a store that has none yet.

        Raises:
            UserError: as :meth:`open`.
        """
        found = read_card(store) if card is None else card
        table = _read_split(store, None)
        _check_tasks(store, table)
        return cls(str(store), "all", table, found)

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def tasks(self) -> NDArray[np.int8]:
        """Task id of each row; int8 ``[N]``."""
        codes = pc.index_in(self.table["task"], value_set=pa.array(TASKS))
        return np.asarray(codes.to_numpy()).astype(np.int8)

    @cached_property
    def images(self) -> NDArray[np.int64]:
        """Number of the image of each row, counted in order; int64 ``[N]``."""
        offset = self.table["offset"].to_numpy()
        changed = (np.diff(offset) != 0) | (np.diff(_codes(self.table["shard"])) != 0)
        return np.concatenate([[0], np.cumsum(changed)]).astype(np.int64)

    @cached_property
    def scenes(self) -> NDArray[np.int64]:
        """The place that each row shows, a number for each (source, scene); int64 ``[N]``.

        Tiles of a scene overlap and resemble each other. Without scenes they are the images.
        """
        if not {"source", "scene"} <= set(self.table.column_names):
            return self.images
        source, scene = (_codes(self.table[name]) for name in ("source", "scene"))
        return source * (int(scene.max(initial=0)) + 1) + scene

    def counts(self) -> tuple[int, int, int]:
        """Samples of each task."""
        found = np.bincount(self.tasks, minlength=3)
        return int(found[0]), int(found[1]), int(found[2])

    def natural_shares(self) -> tuple[float, float, float]:
        """Each task's share of the samples."""
        a, b, c = self.counts()
        return a / len(self), b / len(self), c / len(self)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of what the split's rows stand for, independent of how the file is laid out."""
        digest = hashlib.sha256(f"{len(self)} {self.split}".encode())
        for name in _IDENTITY:
            for part in _identity(self.table[name]):
                digest.update(part)
        return digest.hexdigest()

    def rows(self, numbers: Sequence[int] | NDArray[np.int64]) -> list[dict[str, Any]]:
        """What reading needs of these rows, as dictionaries, in the order asked for."""
        return list(self._location.take(numbers).to_pylist())

    @cached_property
    def _location(self) -> Rows:
        """The columns that reading needs; the others would only cost time."""
        names = [*REQUIRED, *(c for c in ("mask_area",) if c in self.table.column_names)]
        return Rows(self.table.select(names))

    @cached_property
    def _names(self) -> Rows:
        return Rows(self.table.select(["sample_id"]))

    def sample_ids(self, numbers: Sequence[int] | NDArray[np.int64]) -> list[str]:
        """The ids of these rows, in the order asked for."""
        return list(self._names.take(numbers)["sample_id"].to_pylist())


def coded(column: pa.ChunkedArray) -> tuple[NDArray[np.int64], list[str]]:
    """A number for each text, int64 ``[N]``, and the text of each number."""
    numbers, texts = numbered(column)
    return numbers, texts.to_pylist()


def numbered(column: pa.ChunkedArray) -> tuple[NDArray[np.int64], pa.Array]:
    """As :func:`coded`, the texts being left with Arrow: for columns whose texts hardly repeat."""
    encoded = column if pa.types.is_dictionary(column.type) else pc.dictionary_encode(column)
    chunks = encoded.unify_dictionaries().chunks if isinstance(encoded, pa.ChunkedArray) else [encoded]
    numbers, at = np.empty(len(column), np.int64), 0
    for chunk in chunks:
        numbers[at : at + len(chunk)] = np.asarray(chunk.indices)
        at += len(chunk)
    return numbers, chunks[0].dictionary if chunks else pa.array([], pa.string())


def _codes(column: pa.ChunkedArray) -> NDArray[np.int64]:
    return coded(column)[0]


def _check_tasks(store: str, table: pa.Table) -> None:
    unknown = sorted(set(pc.unique(table["task"]).to_pylist()) - set(TASKS))
    if unknown:
        raise UserError(f"{store}/{INDEX} holds unknown tasks {unknown}; known are {list(TASKS)}")


def _identity(column: pa.ChunkedArray) -> Iterator[bytes]:
    """A column's content, independent of how it is cut into pieces."""
    if pa.types.is_integer(column.type):
        yield from (np.asarray(part).astype("<i8").tobytes() for part in column.chunks)
        return
    texts = [pc.cast(part, pa.large_string()) for part in column.chunks]
    yield from (np.asarray(pc.binary_length(text)).astype("<i8").tobytes() for text in texts)
    for text in texts:
        _, ends, data = text.buffers()
        places = np.frombuffer(ends, np.int64)[text.offset : text.offset + len(text) + 1]
        yield b"" if data is None else bytes(memoryview(data)[places[0] : places[-1]])


def read_card(store: str) -> dict[str, Any]:
    """The content of ``dataset.json``.

    Raises:
        UserError: there is no store here, or an unfinished or damaged one.
    """
    fs, root = open_filesystem(store)
    try:
        text = fs.cat_file(f"{root}/{CARD}")
    except FileNotFoundError as error:
        raise UserError(_no_store(fs, root, store)) from error
    except NotADirectoryError as error:
        raise UserError(f"{store} is a file, not a store; give the store's folder") from error
    except storage_errors() as error:
        raise UserError(no_access(f"{store}/{CARD}", error)) from error
    try:
        card = json.loads(text)
    except ValueError as error:
        raise UserError(f"{store}/{CARD} is damaged ({error}); build the store again") from error
    if not isinstance(card, dict):
        raise UserError(f"{store}/{CARD} is not a JSON object; build the store again")
    return card


def no_access(name: str, error: BaseException) -> str:
    """The message for an object that storage refuses or cannot deliver."""
    detail = str(error).strip() or type(error).__name__
    return (
        f"cannot read {name}: {detail}; check the path, its permissions and, for s3://, AWS_ENDPOINT_URL, "
        "AWS_REGION and the credentials"
    )


def _no_store(fs: AbstractFileSystem, root: str, store: str) -> str:
    try:
        found = bool(fs.ls(root, detail=False))
    except storage_errors():
        found = False
    if found:
        return (
            f"{store} has no {CARD}: the store is unfinished (its build was interrupted), or this is none; "
            "run `unigeoseg data build` again"
        )
    return f"no store at {store}: the path does not exist or is empty; make one with `unigeoseg data build`"


def _read_split(store: str, split: str | None) -> pa.Table:
    """The rows of a split: mapped where the index is large, in one piece in memory where it is not."""
    fs, root = open_filesystem(store)
    with _named_errors(store):
        table = mapped_split(fs, f"{root}/{INDEX}", split)
    if table is None:
        table = _read_rows(store)
        _check_columns(store, table)
        if split is not None:
            table = table.filter(pc.field("split") == split)
        table = table.combine_chunks()
    _check_columns(store, table)
    if not len(table):
        splits = sorted(pc.unique(_read_rows(store, ["split"])["split"]).to_pylist())
        hint = f"it has {splits}" if splits else "it has no samples at all"
        raise UserError(f"the store {store} has no samples{f' in split {split!r}' if split else ''}: {hint}")
    return table


def _read_rows(store: str, columns: list[str] | None = None) -> pa.Table:
    fs, root = open_filesystem(store)
    with _named_errors(store):
        return read_parquet(fs, f"{root}/{INDEX}", columns)


def _check_columns(store: str, table: pa.Table) -> None:
    missing = [c for c in REQUIRED if c not in table.column_names]
    if missing:
        raise UserError(f"{store}/{INDEX} lacks the columns {missing}; build the store again")


@contextmanager
def _named_errors(store: str) -> Iterator[None]:
    """What reading the index may raise, with its name."""
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{store} has no {INDEX}; build the store again") from error
    except pa.ArrowInvalid as error:
        raise UserError(f"{store}/{INDEX} is damaged ({error}); build the store again") from error
    except storage_errors() as error:
        raise UserError(no_access(f"{store}/{INDEX}", error)) from error
