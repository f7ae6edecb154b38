"""Checks every record of a store: readable, sound, and as the index and the construction rules say."""

import hashlib
from collections import defaultdict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pipelines.build.preview import open_all_splits
from pipelines.storage import open_filesystem
from pipelines.store.index import StoreIndex
from pipelines.store.reader import Loaded, StoreReader
from unigeoseg.batch import Sample
from unigeoseg.prompts import parse_coordinates
from unigeoseg.tasks import INTERACTIVE

Error = dict[str, str]
_AT_ONCE = 256
#: Half of the last printed digit, and a little.
_PRINTED = 0.0006


def lint_store(store: str, progress: bool = True) -> dict[str, Any]:
    """Opens every record of a finished store.

    Returns:
        ``{"records": n, "errors": [{"sample_id", "reason"}]}``; errors of a whole file name it as sample_id.

    Raises:
        UserError: there is no finished store, or a shard cannot be reached.
    """
    index = open_all_splits(store)
    errors = _duplicates(index) + _splits(index) + _shards(store, index)
    reader = StoreReader(index)
    limits = index.card.get("config", {}).get("rules", {})
    texts: dict[tuple[str, str], list[tuple[str, bytes]]] = defaultdict(list)
    with tqdm(total=len(index), unit="record", desc="lint", disable=not progress) as bar:
        for start in range(0, len(index), _AT_ONCE):
            rows = np.arange(start, min(start + _AT_ONCE, len(index)))
            measured = index.table.select(["key", "mask_area"]).slice(start, len(rows)).to_pylist()
            for row, loaded in zip(measured, reader.load(rows), strict=True):
                errors += [{"sample_id": loaded.sample_id, "reason": r} for r in _record(loaded, row, limits)]
                if loaded.sample is not None and loaded.sample.mask is not None:
                    digest = hashlib.blake2b(loaded.sample.mask.tobytes(), digest_size=8).digest()
                    texts[row["key"], loaded.sample.instruction].append((loaded.sample_id, digest))
            bar.update(len(rows))
    errors += _ambiguous(texts)
    return {"records": len(index), "errors": errors}


def _record(loaded: Loaded, row: dict[str, Any], limits: dict[str, float]) -> list[str]:
    """What is wrong with one record."""
    if loaded.sample is None or loaded.sample.mask is None:
        return [f"{loaded.reason}: {loaded.detail}"]
    sample, mask = loaded.sample, loaded.sample.mask
    area = int(np.count_nonzero(mask))
    found = []
    if area != row["mask_area"]:
        found.append(f"mask_area: the mask has {area} pixels, the index says {row['mask_area']}")
    share = area / mask.size
    least, most = limits.get("min_area", 0.0), limits.get("max_area", 1.0)
    if area and not least <= share <= most:
        found.append(f"area: {share:.2%} of the tile, the rules allow {least:.2%} to {most:.2%}")
    if sample.task == INTERACTIVE:
        found += _prompt(sample, mask)
    return found


def _prompt(sample: Sample, mask: NDArray[np.uint8]) -> list[str]:
    """What is wrong with the coordinates of an interactive record."""
    height, width = mask.shape
    box, points = parse_coordinates(sample.instruction)
    if sample.box is not None:
        if box is None or max(abs(a - b) for a, b in zip(box, sample.box, strict=True)) > _PRINTED:
            return ["coordinates: the sentence does not print the box"]
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if not len(rows):
            return ["coordinates: a box around an empty mask"]
        tight = (
            columns[0] / width,
            rows[0] / height,
            (columns[-1] + 1) / width,
            (rows[-1] + 1) / height,
        )
        off = max(abs(a - b) for a, b in zip(tight, sample.box, strict=True))
        return ["coordinates: the box is not tight around the mask"] if off > 1.0 / min(mask.shape) else []
    given = sample.points or ()
    printed = points or ()
    if len(given) != len(printed) or any(
        abs(a - b) > _PRINTED for p, q in zip(given, printed, strict=True) for a, b in zip(p, q, strict=True)
    ):
        return ["coordinates: the sentence does not print the points"]
    return [
        f"coordinates: point {point} lies outside the mask"
        for point in given
        if not mask[min(int(point[1] * height), height - 1), min(int(point[0] * width), width - 1)]
    ]


def _duplicates(index: StoreIndex) -> list[Error]:
    seen: set[str] = set()
    errors = []
    for name in index.table["sample_id"].to_pylist():
        if name in seen:
            errors.append({"sample_id": name, "reason": "duplicate: the id occurs more than once"})
        seen.add(name)
    return errors


def _splits(index: StoreIndex) -> list[Error]:
    """Scenes that are in more than one split."""
    names = [n for n in ("source", "scene", "split") if n in index.table.column_names]
    if len(names) < 3:
        return []
    places = index.table.select(names).group_by(["source", "scene"]).aggregate([("split", "count_distinct")])
    return [
        {
            "sample_id": f"{row['source']}/{row['scene']}",
            "reason": "split: the scene is in more than one split",
        }
        for row in places.to_pylist()
        if row["split_count_distinct"] > 1
    ]


def _shards(store: str, index: StoreIndex) -> list[Error]:
    """Shards whose size is not the one that the card states (their records are read anyway)."""
    filesystem, root = open_filesystem(store)
    errors = []
    for shard in index.card.get("shards", []):
        path = f"{root}/{shard['path']}"
        size = filesystem.size(path) if filesystem.exists(path) else None
        if size is not None and size != shard["bytes"]:
            reason = f"shard_size: {size} bytes, dataset.json says {shard['bytes']}"
            errors.append({"sample_id": shard["path"], "reason": reason})
    return errors


def _ambiguous(texts: dict[tuple[str, str], list[tuple[str, bytes]]]) -> list[Error]:
    """Samples of one image that share an instruction: twins of one mask, or one text for two masks."""
    errors = []
    for members in texts.values():
        for place, (name, digest) in enumerate(members):
            if any(other == digest for _, other in members[:place]):
                errors.append({"sample_id": name, "reason": "duplicate: same image, instruction and mask"})
            elif place:
                errors.append({"sample_id": name, "reason": "ambiguous: same instruction for another mask"})
    return errors
