"""What a store holds, counted from its index, and where its masks lie, from a sample of its records."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pycocotools import mask as coco

from pipelines.build.progress import Steps
from pipelines.curate.table10 import table10
from pipelines.store.index import StoreIndex
from pipelines.store.record import BadRecord, parse_fragment
from pipelines.store.scan import Place, fragments, open_all_splits, places
from unigeoseg.tasks import TASKS

#: Edges of the bins of a mask's share of its image, evenly on a logarithmic scale: 0.01 % to 100 %.
SHARE_EDGES: NDArray[np.float64] = np.logspace(-4, 0, 41)
#: Cells of the map of mask centres, each way.
CELLS = 24


def statistics(store: str, images: int = 2000, progress: bool = True) -> dict[str, Any]:
    """Counts and histograms of a finished store, all splits together.

    Args:
        store: folder or ``s3://`` prefix.
        images: how many images are opened for the map of mask centres, spread evenly over the store; the rest
            comes from the index alone.
        progress: shows progress on stderr.

    Returns:
        ``{"store", "samples", "images", "table10", "counts", "words", "mask_share", "resolution",
        "centres", "licences"}``. ``words[task]`` counts samples by number of words; ``mask_share[task]``
        by the bins of ``mask_share["edges"]``; ``centres[task]`` is a ``CELLS x CELLS`` table of counts, rows
        downwards.

    Raises:
        UserError: there is no finished store, or a shard cannot be reached.
    """
    index = open_all_splits(store)
    table, card = index.table, index.card
    tasks = index.tasks
    of = {task: rows for number, task in enumerate(TASKS) if (rows := tasks == number).any()}
    present = list(of)
    area = table["mask_area"].to_numpy() / (table["height"].to_numpy() * table["width"].to_numpy())
    words = table["words"].to_numpy()
    found = places(index)
    first = pa.array(found.first_rows)
    sizes = table.select(["width", "height"]).take(first)
    return {
        "store": store,
        "samples": len(index),
        "images": len(found),
        "table10": table10(card),
        "counts": {
            name: _by_task(table, name, present) for name in ("category", "source", "split", "subtask")
        },
        "words": {task: _counted(words[rows]) for task, rows in of.items()},
        "mask_share": {"edges": SHARE_EDGES.tolist()}
        | {task: _shares(area[rows]) for task, rows in of.items()},
        "resolution": _sizes(sizes),
        "centres": _centres(index, images, present, progress),
        "licences": card.get("licences", {}),
    }


def _by_task(table: pa.Table, name: str, present: list[str]) -> dict[str, dict[str, int]]:
    """Samples of each value by task, the most frequent value first."""
    rows = table.group_by([name, "task"]).aggregate([("n", "count")]).to_pylist()
    found: dict[str, dict[str, int]] = {}
    for row in rows:
        found.setdefault(row[name] or "none", dict.fromkeys(present, 0))[row["task"]] += row["n_count"]
    return dict(sorted(found.items(), key=lambda item: (-sum(item[1].values()), item[0])))


def _counted(values: NDArray[np.int32]) -> dict[int, int]:
    numbers, counts = np.unique(values, return_counts=True)
    return dict(zip(numbers.tolist(), counts.tolist(), strict=True))


def _shares(values: NDArray[np.float64]) -> list[int]:
    counts, _ = np.histogram(np.clip(values, SHARE_EDGES[0], 1.0), SHARE_EDGES)
    return [int(count) for count in counts]


def _sizes(sizes: pa.Table) -> list[dict[str, int]]:
    """Images of each size, the most frequent first."""
    counted = sizes.append_column("one", pa.array(np.ones(len(sizes), np.int64)))
    rows = counted.group_by(["width", "height"]).aggregate([("one", "sum")]).to_pylist()
    found = [{"width": r["width"], "height": r["height"], "images": r["one_sum"]} for r in rows]
    return sorted(found, key=lambda row: (-row["images"], row["width"], row["height"]))


def _centres(index: StoreIndex, most: int, present: list[str], progress: bool) -> dict[str, Any]:
    """Where the middles of the masks' boxes lie."""
    found: Sequence[Place] = places(index)
    if len(found) > most:
        found = [found[i] for i in np.linspace(0, len(found) - 1, most).round().astype(int)] if most else []
    maps = {task: np.zeros((CELLS, CELLS), np.int64) for task in present}
    with Steps("mask centres", "image", len(found), progress) as bar:
        for _, data in fragments(index.store, found):
            bar.update()
            try:
                record = parse_fragment(data).record
                for sample in record["samples"]:
                    _mark(maps[sample["task"]], sample["mask"])
            except (BadRecord, LookupError, TypeError, ValueError, AttributeError):
                continue  # `data lint` is what names damaged records
    return {task: counts.tolist() for task, counts in maps.items()}


def _mark(counts: NDArray[np.int64], rle: dict[str, Any]) -> None:
    x, y, width, height = coco.toBbox(rle | {"counts": rle["counts"].encode("ascii")})
    if width <= 0 or height <= 0:
        return
    rows, columns = rle["size"]
    row = min(int((y + height / 2) / rows * CELLS), CELLS - 1)
    column = min(int((x + width / 2) / columns * CELLS), CELLS - 1)
    counts[row, column] += 1


def top(counts: dict[str, dict[str, int]], most: int) -> dict[str, dict[str, int]]:
    """The most frequent values, all others together as one."""
    kept = dict(list(counts.items())[:most])
    rest = list(counts.items())[most:]
    if rest:
        total: dict[str, int] = {}
        for _, row in rest:
            total = {task: total.get(task, 0) + n for task, n in row.items()}
        kept[f"{len(rest)} others"] = total
    return kept
