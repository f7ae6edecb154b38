"""What a map has finished so far, in one file beside its outputs; each part is there whole or not at all."""

import json
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.maps.blend import Mask
from pipelines.maps.grid import Rect
from pipelines.maps.pieces import Borders, Piece
from unigeoseg.errors import UserError

#: The file, in the output folder; gone when the map is finished.
WORK = "unfinished.sqlite"
_TABLES = """
CREATE TABLE IF NOT EXISTS about (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS parts (
  number INTEGER PRIMARY KEY, top INTEGER, lft INTEGER, bottom INTEGER, rgt INTEGER,
  computed INTEGER, skipped INTEGER, mask BLOB, score BLOB, borders BLOB);
CREATE TABLE IF NOT EXISTS pieces (
  number INTEGER, label INTEGER, row INTEGER, col INTEGER, area INTEGER, score_sum INTEGER, score_max INTEGER,
  cut INTEGER, edge INTEGER, outline BLOB, PRIMARY KEY (number, label)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS failed (number INTEGER PRIMARY KEY, reason TEXT NOT NULL);
"""
_OBJECTS = """
DROP TABLE IF EXISTS objects;
CREATE TABLE objects (
  row INTEGER, col INTEGER, number INTEGER, area INTEGER, score_sum INTEGER, score_max INTEGER, cut INTEGER,
  outline BLOB, PRIMARY KEY (row, col, number)) WITHOUT ROWID;
"""
_COLUMNS = "label, row, col, area, score_sum, score_max, cut, edge, outline"
_AT_ONCE = 10_000


@dataclass(frozen=True)
class Part:
    """A finished block, or the window of a prompt.

    Attributes:
        number: of the block or prompt.
        place: what it covers.
        mask: uint8 ``[h, w]``: 0, 1, 254, 255.
        score: uint8 ``[h, w]``.
        pieces: its objects.
        borders: of a block.
        computed: windows that were computed, each counted with one block.
        skipped: windows without data.
    """

    number: int
    place: Rect
    mask: Mask
    score: Mask
    pieces: Sequence[Piece]
    borders: Borders | None
    computed: int
    skipped: int


@dataclass(frozen=True)
class Found:
    """An object: a region, or all that a prompt marked.

    Attributes:
        number: of the prompt; of a region, of the block that it begins in.
        row: of its first pixel.
        column: of that pixel.
        area: pixels.
        score_sum: of its pixels.
        score_max: of its pixels.
        cut: see :class:`~pipelines.maps.pieces.Piece`.
        outline: WKB in pixels.
    """

    number: int
    row: int
    column: int
    area: int
    score_sum: int
    score_max: int
    cut: bool
    outline: bytes


class Work:
    """The file of finished parts; one process at a time has it, until it closes it or ends.

    Args:
        folder: of the map.

    Raises:
        UserError: it cannot be written, or another process has it.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / WORK
        try:
            self._base = sqlite3.connect(self.path, timeout=1)
            self._base.executescript(f"PRAGMA locking_mode=EXCLUSIVE; BEGIN EXCLUSIVE; COMMIT; {_TABLES}")
        except sqlite3.Error as error:
            if "locked" in str(error):
                raise UserError(
                    f"another process makes the map in {folder}: wait for it, or end it"
                ) from error
            raise UserError(
                f"{self.path} cannot be used ({error}): remove it, or choose another --out"
            ) from error

    def __enter__(self) -> "Work":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file and leaves it."""
        self._base.close()

    def remove(self) -> None:
        """Closes and removes the file."""
        self.close()
        self.path.unlink(missing_ok=True)

    def about(self) -> dict[str, Any]:
        """What the map is of; empty at the beginning."""
        return {key: json.loads(value) for key, value in self._base.execute("SELECT key, value FROM about")}

    def set_about(self, values: dict[str, Any]) -> None:
        """Keeps what the map is of."""
        with self._base:
            rows = [(key, json.dumps(value)) for key, value in values.items()]
            self._base.executemany("INSERT OR REPLACE INTO about VALUES (?, ?)", rows)

    def done(self) -> set[int]:
        """Numbers of the finished parts."""
        return {number for (number,) in self._base.execute("SELECT number FROM parts")}

    def save(self, part: Part) -> None:
        """Keeps a part.

        Raises:
            UserError: the disk is full.
        """
        place = (part.place.top, part.place.left, part.place.bottom, part.place.right)
        packed = [zlib.compress(values.tobytes(), 1) for values in (part.mask, part.score)]
        borders = part.borders.to_bytes() if part.borders else None
        pieces = [
            (
                part.number,
                p.label,
                p.row,
                p.column,
                p.area,
                p.score_sum,
                p.score_max,
                p.cut,
                p.edge,
                p.outline,
            )
            for p in part.pieces
        ]
        try:
            with self._base:
                self._base.execute(
                    "INSERT OR REPLACE INTO parts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (part.number, *place, part.computed, part.skipped, *packed, borders),
                )
                self._base.execute("DELETE FROM failed WHERE number = ?", (part.number,))
                self._base.executemany("INSERT OR REPLACE INTO pieces VALUES (?,?,?,?,?,?,?,?,?,?)", pieces)
        except sqlite3.OperationalError as error:
            raise UserError(
                f"{self.path} cannot be written ({error}): make room and give the same command with --resume"
            ) from error

    def fail(self, number: int, reason: str) -> None:
        """Keeps why a part could not be made."""
        with self._base:
            self._base.execute("INSERT OR REPLACE INTO failed VALUES (?, ?)", (number, reason))

    def failed(self) -> list[tuple[int, str]]:
        """Number and reason of what could not be made, in order."""
        return list(self._base.execute("SELECT number, reason FROM failed ORDER BY number"))

    def counts(self) -> tuple[int, int]:
        """Windows computed and skipped."""
        row = self._base.execute("SELECT COALESCE(SUM(computed), 0), COALESCE(SUM(skipped), 0) FROM parts")
        computed, skipped = row.fetchone()
        return int(computed), int(skipped)

    def reaching(self, place: Rect) -> Iterator[tuple[Rect, Mask, Mask]]:
        """Place, mask and score of the parts that reach into a part of the raster, one at a time."""
        rows = self._base.execute(
            "SELECT top, lft, bottom, rgt, mask, score FROM parts WHERE top < ? AND bottom > ? "
            "AND lft < ? AND rgt > ? ORDER BY number",
            (place.bottom, place.top, place.right, place.left),
        )
        for top, left, bottom, right, mask, score in rows:
            rect = Rect(top, left, bottom, right)
            yield rect, _unpacked(mask, rect), _unpacked(score, rect)

    def borders(self, number: int) -> Borders | None:
        """Of a block; ``None``: it failed."""
        row = self._base.execute("SELECT borders FROM parts WHERE number = ?", (number,)).fetchone()
        return Borders.from_bytes(row[0]) if row and row[0] else None

    def piece(self, number: int, label: int) -> Piece:
        """A piece by its part and label."""
        row = self._base.execute(
            f"SELECT {_COLUMNS} FROM pieces WHERE number = ? AND label = ?", (number, label)
        ).fetchone()
        return Piece(*row)

    def edge_pieces(self) -> Iterator[tuple[int, int]]:
        """Part and label of the pieces that may go on in another block, in order."""
        keys = "SELECT number, label FROM pieces WHERE edge ORDER BY number, label"
        return iter(self._base.execute(keys))

    def begin_objects(self) -> None:
        """Takes every piece that ends inside its part as an object."""
        self._base.executescript(_OBJECTS)
        with self._base:
            self._base.execute(
                "INSERT INTO objects SELECT row, col, number, area, score_sum, score_max, cut, outline "
                "FROM pieces WHERE NOT edge"
            )

    def add_object(self, found: Found) -> None:
        """Adds an object; :meth:`end_objects` keeps what was added."""
        self._base.execute(
            "INSERT INTO objects VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                found.row,
                found.column,
                found.number,
                found.area,
                found.score_sum,
                found.score_max,
                found.cut,
                found.outline,
            ),
        )

    def end_objects(self) -> int:
        """Keeps the objects; how many there are."""
        self._base.commit()
        return int(self._base.execute("SELECT COUNT(*) FROM objects").fetchone()[0])

    def objects(self) -> Iterator[list[Found]]:
        """The objects by their first pixels, some thousand at a time."""
        rows = self._base.execute("SELECT * FROM objects ORDER BY row, col, number")
        while some := rows.fetchmany(_AT_ONCE):
            yield [
                Found(number, row, col, area, total, most, bool(cut), outline)
                for row, col, number, area, total, most, cut, outline in some
            ]


def _unpacked(data: bytes, place: Rect) -> NDArray[np.uint8]:
    return np.frombuffer(zlib.decompress(data), np.uint8).reshape(place.height, place.width)
