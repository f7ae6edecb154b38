"""What the index of a store costs by its number of rows: opening, planning, card, lint, merge and export.

Each size runs in a process of its own over an index that is made for it; images and shards are not needed for
any of it. Time must grow with the rows, memory of what streams must not.
"""

import gc
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.bench.own_memory import Watch, own_memory
from pipelines.build.card import CardRows, measured_card
from pipelines.build.variety import Variety
from pipelines.curate.lint import check_index, packed
from pipelines.curate.merge import plan_merge
from pipelines.models.machine import machine
from pipelines.plan.plan import Plan
from pipelines.plan.schedule import make_curve
from pipelines.plan.units import UnitTable
from pipelines.store.index import StoreIndex
from pipelines.store.mapped import CACHE
from pipelines.store.scan import open_all_splits, parted, places
from pipelines.store.writer import INDEX_SCHEMA, SCHEMA_VERSION, IndexWriter, shard_path, write_card
from unigeoseg.schedules.pts import Schedule
from unigeoseg.tasks import TASKS

#: What is measured, in this order.
PARTS: Final = ("open", "open_again", "plan", "card", "lint", "merge", "export")
#: Most rows that an index is made of.
MOST_ROWS: Final = 20_000_000
_SAMPLES_PER_IMAGE, _IMAGES_PER_SCENE, _IMAGES_PER_SHARD = 3, 16, 800
_NBYTES = 300 * 1024
_ROWS_AT_ONCE: Final = 1 << 19
_BATCH: Final = 256


def bench_scale(sizes: Sequence[int], tell: Callable[[str], None] | None = None) -> dict[str, Any]:
    """Measures each size.

    Args:
        sizes: numbers of rows, at most :data:`MOST_ROWS`.
        tell: is told what is being measured.

    Returns:
        ``rows``: for each size ``<part>_s``, and ``<part>_mib``, the largest memory of the part beyond what
        was held before it; ``ratios``: of the largest size to the smallest, seconds and memory a row; and
        ``machine``.
    """
    rows = []
    context = multiprocessing.get_context("spawn")
    for size in sizes:
        if tell is not None:
            tell(f"an index of {size} rows")
        with tempfile.TemporaryDirectory(prefix="unigeoseg-") as folder, context.Pool(1) as pool:
            rows.append(pool.apply(measure, (size, folder)))
    return {"rows": rows, "ratios": _ratios(rows), "machine": machine()}


def _ratios(rows: list[dict[str, Any]]) -> dict[str, float]:
    small, large = rows[0], rows[-1]
    if len(rows) < 2:
        return {}
    grown = large["rows"] / small["rows"]
    found = {}
    for part in PARTS:
        found[f"{part}: seconds a row, largest / smallest"] = large[f"{part}_s"] / small[f"{part}_s"] / grown
        found[f"{part}: bytes a row, from smallest to largest"] = (
            (large[f"{part}_mib"] - small[f"{part}_mib"]) * 2**20 / (large["rows"] - small["rows"])
        )
    return found


def measure(rows: int, folder: str) -> dict[str, Any]:
    """One size; to be run in a process of its own, since it sets where an index is mapped."""
    os.environ[CACHE] = folder
    store = f"{folder}/store"
    started = time.perf_counter()
    write_index(store, rows)
    found: dict[str, Any] = {"name": f"{rows} rows", "rows": rows, "make_s": time.perf_counter() - started}
    index = StoreIndex.open_all
    work: dict[str, Callable[[], Any]] = {
        "open": lambda: open_all_splits(store),
        "open_again": lambda: open_all_splits(store),
        "plan": lambda: _plan(index(store), Path(folder)),
        "card": lambda: measured_card(CardRows(store), [], Variety()),
        "lint": lambda: _lint(index(store)),
        "merge": lambda: plan_merge(_halves(index(store))),
        "export": lambda: sum(place.nbytes for run in places(index(store)).by_shard() for place in run),
    }
    for part in PARTS:
        gc.collect()
        pa.default_memory_pool().release_unused()
        before = own_memory()["RssAnon"]
        with Watch() as watch:
            started = time.perf_counter()
            work[part]()
            found[f"{part}_s"] = time.perf_counter() - started
            found[f"{part}_mib"] = max(watch.peak() - before, 0.0)
    return found


def _plan(index: StoreIndex, folder: Path) -> None:
    units = UnitTable.build(index, 1, folder / "units")
    steps = max(len(index) // _BATCH, 1)
    curve = make_curve(Schedule(index.counts()), steps * _BATCH, units, index)
    Plan(index, units, curve, 0, _BATCH, steps).batch(0)


def _lint(index: StoreIndex) -> None:
    check_index(index)
    for _, rows in parted(index.table, "shard"):
        packed(rows)


def _halves(index: StoreIndex) -> list[StoreIndex]:
    """Two stores that have nothing in common."""
    middle = len(index) // 2
    return [
        StoreIndex(index.store, index.split, t, index.card)
        for t in (index.table[:middle], index.table[middle:])
    ]


def write_index(store: str, rows: int) -> None:
    """Writes index and card of a store whose shards are nowhere: three samples an image, two splits."""
    writer = IndexWriter(store)
    for table in _tables(rows):
        writer.add(table)
    writer.close()
    counts = dict.fromkeys(("train", "val")[: 1 + (rows > _SAMPLES_PER_IMAGE * 2)], 1)
    write_card(store, {"schema_version": SCHEMA_VERSION, "counts": {"split": counts}, "shards": []})


def _tables(rows: int) -> Iterator[pa.Table]:
    images = -(-rows // _SAMPLES_PER_IMAGE)
    training = images - max(images // 10, 1)
    for begin in range(0, rows, _ROWS_AT_ONCE):
        row = np.arange(begin, min(begin + _ROWS_AT_ONCE, rows))
        image, n = row // _SAMPLES_PER_IMAGE, row % _SAMPLES_PER_IMAGE
        held = image >= training
        place = np.where(held, image - training, image)
        shard = place // _IMAGES_PER_SHARD
        rng = np.random.default_rng(begin)
        columns = {
            "sample_id": _texts("bench/", row),
            "key": _texts("image_", image),
            "n": n,
            "task": _chosen(TASKS, n),
            "subtask": _chosen(("object",), np.zeros_like(n)),
            "source": _chosen(("bench",), np.zeros_like(n)),
            "category_id": image % 117 + 1,
            "category": _texts("category ", image % 117 + 1),
            "scene": _texts("scene_", place // _IMAGES_PER_SCENE + held * images),
            "split": _chosen(("train", "val"), held.astype(np.int64)),
            "licence": _chosen(("CC0-1.0",), np.zeros_like(n)),
            "shard": _shards(shard, held),
            "offset": place % _IMAGES_PER_SHARD * _NBYTES,
            "nbytes": np.full(len(row), _NBYTES),
            "height": np.full(len(row), 512),
            "width": np.full(len(row), 512),
            "mask_area": rng.integers(100, 100_000, len(row)),
            "box_area": rng.integers(100_000, 200_000, len(row)),
            "words": rng.integers(3, 40, len(row)),
        }
        yield pa.table(columns).cast(INDEX_SCHEMA)


def _texts(before: str, numbers: np.ndarray) -> pa.Array:
    return pc.binary_join_element_wise(before, pa.array(numbers).cast(pa.string()), "")


def _chosen(texts: Sequence[str], numbers: np.ndarray) -> pa.Array:
    return pa.array(texts).take(pa.array(numbers))


def _shards(number: np.ndarray, held: np.ndarray) -> pa.Array:
    """Paths of shards, few of which are different."""
    both = number * 2 + held
    different, place = np.unique(both, return_inverse=True)
    names = [shard_path("val" if one % 2 else "train", one // 2) for one in different.tolist()]
    return pa.array(names).take(pa.array(place))
