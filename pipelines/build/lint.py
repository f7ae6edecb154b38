"""Checks every record of a store: readable, sound, and as the index, the card and the rules say."""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from typing import Any

import pyarrow.compute as pc

from pipelines.build.lint_pictures import Seen, twins
from pipelines.build.lint_shard import Finding, Rules, check_shard
from pipelines.build.lint_text import authors
from pipelines.build.progress import Steps
from pipelines.store.index import StoreIndex
from pipelines.store.scan import open_all_splits

Error = dict[str, str]
#: A smaller store is not worth the start of other processes.
_ALONE = 3000
#: From this share on a script is the store's.
_NEARLY_ALL = 0.9


def lint_store(store: str, progress: bool = True, workers: int = 1) -> dict[str, Any]:
    """Opens every record of a finished store.

    Args:
        store: folder or ``s3://`` prefix.
        progress: shows progress on stderr.
        workers: processes, a shard each at a time; a small store is read by this one.

    Returns:
        ``{"records": n, "errors": [{"sample_id", "reason"}]}``; errors of a whole file name it as sample_id,
        errors of an image its first sample.

    Raises:
        UserError: there is no finished store, or a shard cannot be reached.
    """
    index = open_all_splits(store)
    errors = _duplicates(index) + _splits(index)
    shards = sorted(set(pc.unique(index.table["shard"]).to_pylist()) | set(_entries(index)))
    images: list[Seen] = []
    scripts: dict[str, list[str]] = {}
    with Steps("lint", "record", len(index), progress) as bar:
        for finding in _findings(index, shards, workers if len(index) >= _ALONE else 1, bar):
            errors += finding.errors
            images += finding.images
            for script, names in finding.scripts.items():
                scripts.setdefault(script, []).extend(names)
    errors += _same_images(images) + _scripts(scripts)
    return {"records": len(index), "errors": errors}


def _entries(index: StoreIndex) -> dict[str, dict[str, Any]]:
    listed = index.card.get("shards", [])
    return {shard["path"]: shard for shard in listed} if isinstance(listed, list) else {}


def _findings(index: StoreIndex, shards: list[str], workers: int, bar: Steps) -> Iterator[Finding]:
    if workers <= 1:
        for shard in shards:
            yield _check(index, shard, bar)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for finding in pool.map(_elsewhere, [index.store] * len(shards), shards):
            bar.update(finding.records)
            yield finding


def _check(index: StoreIndex, shard: str, bar: Steps | None = None) -> Finding:
    entry = _entries(index).get(shard)
    rules = Rules(index.card.get("config", {}).get("rules", {}), authors(index.card))
    table = index.table.filter(pc.field("shard") == shard).combine_chunks()
    part = StoreIndex(index.store, index.split, table, index.card)
    return check_shard(part, shard, entry, rules, bar.update if bar else None)


def _elsewhere(store: str, shard: str) -> Finding:
    return _check(_opened(store), shard)


@cache
def _opened(store: str) -> StoreIndex:
    """Of a worker process: the index once for all its shards."""
    return open_all_splits(store)


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


def _same_images(images: list[Seen]) -> list[Error]:
    """Pictures that stand under several keys; across splits they also give the held-out data away."""
    errors = []
    for seen, first, words in twins(images):
        reason = f"{words} {first.sample_id}"
        if seen.split != first.split:
            reason += f", which is in split {first.split}, this one in {seen.split}"
        errors.append({"sample_id": seen.sample_id, "reason": reason})
    return errors


def _scripts(scripts: dict[str, list[str]]) -> list[Error]:
    """Samples in another script than nearly all of the store."""
    total = sum(map(len, scripts.values()))
    main = max(scripts, key=lambda name: len(scripts[name]), default="")
    if not total or len(scripts[main]) < _NEARLY_ALL * total:
        return []
    return [
        {"sample_id": name, "reason": f"script: the text is {script}, nearly all others are {main}"}
        for script, names in sorted(scripts.items())
        if script not in (main, "")
        for name in names
    ]
