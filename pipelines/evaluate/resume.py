"""Finished portions on disk, so that an evaluation that was killed goes on where it stopped."""

import dataclasses
import hashlib
import io
import json
import re
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.evaluate.data import Index
from pipelines.evaluate.records import Portion
from pipelines.evaluate.selection import Rows
from pipelines.evaluate.worker import EvalJob
from pipelines.storage.filesystem import is_remote, open_filesystem, storage_errors
from pipelines.storage.parquet import parquet_bytes

#: Folder of the portions inside the output folder; removed when the evaluation is finished.
PARTIAL = "partial"
_BAD = b"bad"
#: What :func:`evaluation_key` gives, and so the name of a folder of ours.
_KEY = re.compile(r"[0-9a-f]{20}")


class Finished:
    """The finished portions of one evaluation.

    A folder per evaluation, named by everything that decides its numbers: other weights, data, settings or
    software start anew.

    Args:
        out: the output folder, local or ``s3://``; ``None`` keeps nothing.
        key: see :func:`evaluation_key`.
    """

    def __init__(self, out: str | None, key: str) -> None:
        self._out, self._key = out, key

    def load(self) -> Iterator[Portion]:
        """The portions that are there, one in memory at a time; an unreadable one counts as not there."""
        if self._out is None:
            return
        fs, folder = self._folder()
        for path in sorted(fs.glob(f"{folder}/*.parquet")):
            try:
                table = pq.read_table(parquet_bytes(fs.cat_file(path)))
                content = json.loads((table.schema.metadata or {})[_BAD])
            except (pa.ArrowInvalid, KeyError, *storage_errors()):
                continue
            bad = [(str(name), str(reason)) for name, reason in content["bad"]]
            yield Portion(table.replace_schema_metadata(None), bad, content["number"])

    def save(self, portion: Portion) -> None:
        """Keeps a portion; whole or not at all."""
        if self._out is None:
            return
        fs, folder = self._folder()
        fs.makedirs(folder, exist_ok=True)
        note = json.dumps({"number": portion.number, "bad": portion.bad}).encode()
        data = io.BytesIO()
        pq.write_table(portion.table.replace_schema_metadata({_BAD: note}), data)
        final = f"{folder}/{portion.number:08d}.parquet"
        fs.pipe_file(f"{final}.part", data.getvalue())
        fs.mv(f"{final}.part", final)

    def _folder(self) -> tuple[Any, str]:
        fs, root = open_filesystem(self._out or "")
        return fs, f"{root}/{PARTIAL}/{self._key}"


def forget_portions(out: str) -> None:
    """Removes what was kept in an output folder, of abandoned evaluations as well; nothing else beside it."""
    fs, root = open_filesystem(out)
    fs.invalidate_cache()
    place = f"{root}/{PARTIAL}"
    if not fs.isdir(place):
        return
    for path in [str(p).rstrip("/") for p in fs.ls(place, detail=False)]:
        if _KEY.fullmatch(path.rpartition("/")[2]):
            fs.rm(path, recursive=True)
    if not is_remote(out) and not fs.ls(place, detail=False):
        fs.rmdir(place)


def evaluation_key(job: EvalJob, index: Index, rows: Rows, images: int) -> str:
    """A name for everything that decides the numbers of an evaluation.

    Args:
        job: what to do.
        index: of the data.
        rows: those that are evaluated.
        images: in a portion.
    """
    exports = {job.model.export, *([job.untrained.export] if job.untrained else [])}
    parts = {
        "job": dataclasses.asdict(job),
        "data": index.fingerprint,
        "rows": hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest(),
        "images": images,
        "weights": [_state_of(export) for export in sorted(exports)],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:20]


def _state_of(export: str) -> list[tuple[str, str]]:
    """Name and state (size and time, or the object store's checksum) of an export's files."""
    fs, root = open_filesystem(export)
    files = sorted(str(file) for file in fs.find(root))
    return [(file.removeprefix(root), str(fs.ukey(file))) for file in files]
