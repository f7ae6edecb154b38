"""Contact sheets of a store's samples: the image with the outline of the mask, its prompt and its text."""

import io
import re
import textwrap
from collections import Counter
from dataclasses import dataclass
from typing import Any

import cv2
import matplotlib.figure
import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.build.seeds import digest
from pipelines.storage.filesystem import is_remote, open_filesystem
from pipelines.store.index import StoreIndex
from pipelines.store.reader import Loaded, StoreReader
from pipelines.store.scan import open_all_splits
from pipelines.store.writer import atomic_write
from unigeoseg.errors import UserError
from unigeoseg.samples.sample import Sample
from unigeoseg.tasks import TASKS

_COLUMNS = 4
_SIDE = 384
#: Inches of a panel, of a line of text under it, of the sheet's heading, and around a picture.
_INCHES, _LINE, _HEADING, _GAP = 4.0, 0.155, 0.4, 0.04
_WRAP, _MOST_LINES = 58, 9
#: Rows whose names are Python's at a time.
_AT_ONCE = 1 << 14


@dataclass(frozen=True)
class Choice:
    """Which samples a sheet shows.

    Attributes:
        task: of this task alone.
        source: of this source alone.
        n: how many.
        seed: of their order.
    """

    task: str | None = None
    source: str | None = None
    n: int = 12
    seed: int = 0

    @property
    def name(self) -> str:
        """What the sheet's title says."""
        return ", ".join(part for part in (self.source, self.task) if part) or "all tasks"


def write_previews(index: StoreIndex) -> None:
    """Writes ``preview-<task>.png`` for every task into the store."""
    filesystem, root = open_filesystem(index.store)
    for task in TASKS:
        sheet = contact_sheet(index, Choice(task))
        if sheet is not None:
            with atomic_write(filesystem, f"{root}/preview-{task}.png", is_remote(index.store)) as handle:
                handle.write(sheet)


def preview(store: str, out: str, choice: Choice) -> list[str]:
    """Writes contact sheets of a finished store, all splits together; gives their paths.

    Args:
        store: folder or ``s3://`` prefix.
        out: a name that ends in ``.png`` gets one sheet; any other is a folder, which gets a sheet for each
            task and one for each source (of what is chosen).
        choice: which samples.

    Raises:
        UserError: there is no such store, it has no such sample, or ``out`` cannot be written.
    """
    index = open_all_splits(store)
    if out.lower().endswith(".png"):
        wanted = {out: choice}
    else:
        wanted = {f"{out.rstrip('/')}/{name}.png": one for name, one in choices(index, choice).items()}
    written = []
    for path, one in wanted.items():
        sheet = contact_sheet(index, one)
        if sheet is not None:
            write_file(path, sheet)
            written.append(path)
    if not written:
        sources = ", ".join(sorted(pc.unique(index.table["source"]).to_pylist()))
        raise UserError(f"{store} has no {choice.name} sample to show; its sources are {sources}")
    return written


def choices(index: StoreIndex, base: Choice) -> dict[str, Choice]:
    """The sheets of a whole store by name: ``task-<task>`` and ``source-<source>``."""
    found = {
        f"task-{task}": Choice(task, base.source, base.n, base.seed)
        for task in TASKS
        if base.task in (None, task)
    }
    for source in sorted(pc.unique(index.table["source"]).to_pylist()):
        if base.source in (None, source):
            name = re.sub(r"[^\w.-]+", "_", source)
            found[f"source-{name}"] = Choice(base.task, source, base.n, base.seed)
    return found


def write_file(path: str, data: bytes) -> None:
    """Writes a file whole.

    Raises:
        UserError: it cannot be written.
    """
    filesystem, inner = open_filesystem(path)
    try:
        with atomic_write(filesystem, inner, is_remote(path)) as handle:
            handle.write(data)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error}; name a file in a folder that you may write to"
        ) from error


def contact_sheet(index: StoreIndex, choice: Choice) -> bytes | None:
    """A PNG of the chosen samples, always the same; ``None`` without any."""
    chosen = np.ones(len(index), bool)
    for column, value in (("task", choice.task), ("source", choice.source)):
        if value is not None:
            chosen &= np.asarray(pc.equal(index.table[column], value))
    rows = np.flatnonzero(chosen)
    if not len(rows):
        return None
    panels = [_panel(one) for one in StoreReader(index).load(_choose(index, rows, choice))]
    texts = [_wrapped(text) for _, text in panels]
    lines = -(-len(panels) // _COLUMNS)
    most = max(text.count("\n") + 1 for text in texts)
    each, width = _INCHES + 0.25 + _LINE * most, _INCHES * _COLUMNS
    height = lines * each + _HEADING
    # Placed by hand: finding places by itself takes Matplotlib longer than drawing.
    figure = matplotlib.figure.Figure(figsize=(width, height))
    for number, ((picture, _), text) in enumerate(zip(panels, texts, strict=True)):
        at, across = divmod(number, _COLUMNS)
        left, bottom = across * _INCHES + _GAP, height - _HEADING - at * each - (_INCHES - _GAP)
        side = _INCHES - 2 * _GAP
        axis = figure.add_axes((left / width, bottom / height, side / width, side / height))
        axis.imshow(picture)
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_anchor("N")
        axis.set_xlabel(text, fontsize=8.5, loc="left", parse_math=False)
    title = f"{choice.name}: {len(panels)} of {len(rows)} samples"
    middle: dict[str, Any] = {"ha": "center", "va": "center"}
    figure.text(0.5, 1 - _HEADING / 2 / height, title, fontsize=13, parse_math=False, **middle)
    buffer = io.BytesIO()
    compressed = {"compress_level": 3}
    figure.savefig(buffer, format="png", dpi=80, metadata={"Software": None}, pil_kwargs=compressed)
    return buffer.getvalue()


def _wrapped(text: str) -> str:
    return "\n".join(textwrap.wrap(text, _WRAP, max_lines=_MOST_LINES, placeholder=" …"))


def _choose(index: StoreIndex, rows: NDArray[np.int64], choice: Choice) -> list[int]:
    """Rows in a fixed random order, different images first."""
    places = np.empty(len(rows), np.uint64)
    for at in range(0, len(rows), _AT_ONCE):
        names = index.sample_ids(rows[at : at + _AT_ONCE])
        places[at : at + len(names)] = [digest("preview", choice.seed, name) for name in names]
    order = rows[np.argsort(places, kind="stable")]
    seen: Counter[str] = Counter()
    turns: list[tuple[int, int, int]] = []
    for at in range(0, len(order), _AT_ONCE):
        here = order[at : at + _AT_ONCE]
        for row, entry in zip(here.tolist(), index.rows(here), strict=True):
            seen[entry["key"]] += 1
            turns.append((seen[entry["key"]], len(turns), row))
        if len(seen) >= choice.n:  # all others come later in the order, or show an image again
            break
    return [row for _, _, row in sorted(turns)[: choice.n]]


def _panel(loaded: Loaded) -> tuple[NDArray[np.uint8], str]:
    if loaded.sample is None or loaded.image is None:
        return np.zeros((8, 8, 3), np.uint8), f"{loaded.sample_id}: {loaded.reason} ({loaded.detail})"
    sample = loaded.sample
    text = f"[{sample.category or 'no category'}] {sample.instruction}"
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
    line = max(1, round(max(size) / 256))  # as wide on the sheet whatever the image's size
    cv2.drawContours(canvas, outlines, -1, (0, 0, 0), 3 * line)
    cv2.drawContours(canvas, outlines, -1, (255, 235, 0), line)
    if sample.box is not None:
        x0, y0, x1, y1 = (round(v * s) for v, s in zip(sample.box, size * 2, strict=True))
        cv2.rectangle(canvas, (x0, y0), (x1 - 1, y1 - 1), (255, 0, 255), line)
    for x, y in sample.points or ():
        cv2.circle(canvas, (round(x * size[0]), round(y * size[1])), 7 * line, (255, 255, 255), -1)
        cv2.circle(canvas, (round(x * size[0]), round(y * size[1])), 5 * line, (255, 0, 255), -1)
    return canvas
