"""Summing up an evaluation: by task, category, source, size of the target and kind of instruction."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.labels.taxonomy import taxonomy
from unigeoseg.losses.mask_watch import FULL
from unigeoseg.metrics import BOX_THRESHOLDS, MASK_THRESHOLDS, MetricSums, bootstrap_ci95
from unigeoseg.tasks import TASKS

#: Sizes of a target by its share of the image: name, and the share below which it applies.
SIZES: tuple[tuple[str, float], ...] = (
    ("below 0.5 %", 0.005),
    ("0.5 to 2 %", 0.02),
    ("2 to 10 %", 0.1),
    ("10 % and more", float("inf")),
)
#: Samples that a remark names.
_NAMED = 5
NO_TARGET, NO_CATEGORY = "no target", "no category"


def summarise(table: pa.Table, scenes: Any, seed: int = 0, boxes: bool = False) -> dict[str, Any]:
    """The groups of ``evaluation.json``; one without samples is left out.

    Args:
        table: a row a sample.
        scenes: the scene of each row, any integers: rows of one are not independent (tiles of it overlap).
        seed: of the bootstrap.
        boxes: the thresholds of visual grounding instead of those for masks.
    """
    thresholds = BOX_THRESHOLDS if boxes else MASK_THRESHOLDS

    def group(mask: Any) -> dict[str, Any]:
        inter, union, share = (
            table[c].to_numpy()[mask] for c in ("intersection", "union", "predicted_share")
        )
        sums = MetricSums(thresholds).add_all(inter.tolist(), union.tolist())
        target = table["truth_share"].to_numpy()[mask] > 0
        seen = target if target.any() else ~target  # an empty mask is right where nothing is there
        look = {"empty": float((share[seen] == 0).mean()), "full": float((share >= FULL).mean())}
        if not target.all():
            look["targets"] = int(target.sum())
        return {**sums.result(), **look, "ci95": bootstrap_ci95(inter, union, scenes[mask], seed)}

    def groups(column: Any, names: Iterable[str]) -> dict[str, Any]:
        masks = {name: pc.equal(column, name).to_numpy(zero_copy_only=False) for name in names}
        return {name: group(mask) for name, mask in masks.items() if mask.any()}

    category = pc.if_else(pc.equal(table["category"], ""), NO_CATEGORY, table["category"])
    return {
        "tasks": groups(table["task"], TASKS),
        "overall": group(np.ones(table.num_rows, dtype=bool)),
        "sources": groups(table["source"], _present(table["source"])),
        "subtasks": groups(table["subtask"], _present(table["subtask"])),
        "sizes": groups(size_names(table), (NO_TARGET, *(name for name, _ in SIZES))),
        "categories": groups(category, _present(category)),
    }


def size_names(table: pa.Table) -> pa.Array:
    """The size of each row's target, by its share of the original image."""
    share = table["truth_share"].to_numpy()
    names = np.asarray([name for name, _ in SIZES])
    place = np.searchsorted([limit for _, limit in SIZES], share, side="right")
    return pa.array(np.where(share == 0, NO_TARGET, names[place]).tolist())


def vanished(table: pa.Table) -> int:
    """How many targets have pixels in the image but none at the size at which masks are compared."""
    share, area = table["truth_share"].to_numpy(), table["truth_area"].to_numpy()
    return int(((share > 0) & (area == 0)).sum())


def stretched(table: pa.Table) -> dict[str, Any]:
    """Masks that were made for a picture of slightly another size: how many, and the first few of them."""
    found = table.filter(pc.is_valid(table["mask_size"]))
    columns = ["sample_id", "height", "width", "mask_size"]
    named = [
        {"sample_id": row["sample_id"], "image": [row["height"], row["width"]], "mask": row["mask_size"]}
        for row in found.select(columns).slice(0, _NAMED).to_pylist()
    ]
    return {"n": found.num_rows, "named": named}


def foreign_categories(table: pa.Table) -> list[str]:
    """Categories whose id means another one in this version's taxonomy, as ``"25 House (here Building)"``."""
    pairs = table.group_by(["category_id", "category"]).aggregate([]).to_pylist()
    known = {number: category.name for number, category in taxonomy().items()}
    return [
        f"{p['category_id']} {p['category']} (here {known.get(p['category_id'], 'unknown')})"
        for p in sorted(pairs, key=lambda p: (p["category_id"], p["category"]))
        if p["category_id"] > 0 and p["category"] and known.get(p["category_id"]) != p["category"]
    ]


def _present(column: Any) -> list[str]:
    return sorted(set(column.to_pylist()))
