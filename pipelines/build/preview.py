"""Contact sheets of a store's samples: the image with the outline of the mask, its prompt and its text."""

import io
import textwrap

import cv2
import matplotlib.figure
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.build.seeds import digest
from pipelines.storage import is_remote, open_filesystem
from pipelines.store.index import StoreIndex, read_card
from pipelines.store.reader import Loaded, StoreReader
from pipelines.store.writer import atomic_write
from unigeoseg.batch import Sample
from unigeoseg.errors import UserError
from unigeoseg.tasks import TASKS

_COLUMNS, _ROWS = 4, 3
_SIDE = 384


def write_previews(index: StoreIndex) -> None:
    """Writes ``preview-<task>.png`` for every task into the store."""
    filesystem, root = open_filesystem(index.store)
    for task in TASKS:
        sheet = contact_sheet(index, task)
        if sheet is not None:
            with atomic_write(filesystem, f"{root}/preview-{task}.png", is_remote(index.store)) as handle:
                handle.write(sheet)


def preview(store: str, out: str, task: str | None) -> str:
    """Writes one contact sheet of a finished store, all splits together; gives its path.

    Raises:
        UserError: there is no such store, it has no sample of the task, or ``out`` cannot be written.
    """
    sheet = contact_sheet(open_all_splits(store), task)
    if sheet is None:
        raise UserError(f"{store} has no {task} sample to show")
    filesystem, path = open_filesystem(out)
    try:
        with atomic_write(filesystem, path, is_remote(out)) as handle:
            handle.write(sheet)
    except OSError as error:
        raise UserError(
            f"cannot write {out}: {error}; name a file in a folder that you may write to"
        ) from error
    return out


def open_all_splits(store: str) -> StoreIndex:
    """The index of a finished store, not limited to one split.

    Raises:
        UserError: as :meth:`StoreIndex.open`.
    """
    card = read_card(store)
    splits = sorted(card.get("counts", {}).get("split", {})) or ["train"]
    tables = [StoreIndex.open(store, split).table for split in splits]
    return StoreIndex(store, "all", pa.concat_tables(tables).combine_chunks(), card)


def contact_sheet(index: StoreIndex, task: str | None) -> bytes | None:
    """A PNG of up to twelve samples of one task (or of all), always the same; ``None`` without any."""
    rows = np.arange(len(index))
    if task is not None:
        rows = np.flatnonzero(np.asarray(pc.equal(index.table["task"], task)))
    if not len(rows):
        return None
    loaded = StoreReader(index).load(_choose(index, rows))
    figure = matplotlib.figure.Figure(figsize=(4.0 * _COLUMNS, 4.9 * _ROWS), layout="constrained")
    axes = figure.subplots(_ROWS, _COLUMNS).ravel()
    for axis in axes:
        axis.axis("off")
    for axis, one in zip(axes, loaded, strict=False):
        picture, text = _panel(one)
        axis.imshow(picture)
        axis.set_title("\n".join(textwrap.wrap(text, 52)), fontsize=8.5, loc="left", parse_math=False)
    figure.suptitle(f"{task or 'all tasks'}: {len(loaded)} samples of {len(rows)}", fontsize=13)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=80)
    return buffer.getvalue()


def _choose(index: StoreIndex, rows: NDArray[np.int64]) -> list[int]:
    """Rows in a fixed random order, different images first."""
    names = index.sample_ids(rows)
    keys = index.table["key"].take(pa.array(rows)).to_pylist()
    order = sorted(range(len(rows)), key=lambda i: digest("preview", names[i]))
    seen: dict[str, int] = {}
    turns: list[tuple[int, int, int]] = []
    for i in order:
        seen[keys[i]] = seen.get(keys[i], 0) + 1
        turns.append((seen[keys[i]], len(turns), int(rows[i])))
    return [row for _, _, row in sorted(turns)[: _COLUMNS * _ROWS]]


def _panel(loaded: Loaded) -> tuple[NDArray[np.uint8], str]:
    if loaded.sample is None or loaded.image is None:
        return np.zeros((8, 8, 3), np.uint8), f"{loaded.sample_id}: {loaded.reason} ({loaded.detail})"
    sample = loaded.sample
    text = f"{sample.subtask}: {sample.instruction}"
    return draw(loaded.image, sample), text + (f" → {sample.answer}" if sample.answer else "")


def draw(pixels: NDArray[np.uint8], sample: Sample) -> NDArray[np.uint8]:
    """The image enlarged, the mask's outline in yellow over it, box and points in magenta."""
    assert sample.mask is not None
    height, width = sample.mask.shape
    scale = max(_SIDE / max(height, width), 1.0)
    size = (round(width * scale), round(height * scale))
    canvas = np.ascontiguousarray(cv2.resize(pixels, size, interpolation=cv2.INTER_CUBIC))
    large = cv2.resize(sample.mask, size, interpolation=cv2.INTER_NEAREST)
    outlines, _ = cv2.findContours(large, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, outlines, -1, (0, 0, 0), 3)
    cv2.drawContours(canvas, outlines, -1, (255, 235, 0), 1)
    if sample.box is not None:
        x0, y0, x1, y1 = (round(v * s) for v, s in zip(sample.box, size * 2, strict=True))
        cv2.rectangle(canvas, (x0, y0), (x1 - 1, y1 - 1), (255, 0, 255), 1)
    for x, y in sample.points or ():
        cv2.circle(canvas, (round(x * size[0]), round(y * size[1])), 5, (255, 0, 255), -1)
    return canvas
